"""Settings of `register`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from cxrreport.settings.base import PositiveInt, Settings
from cxrreport.settings.tracking import TrackingSettings

Alias = Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")]


class RegisterSettings(Settings):
    """Register a fine-tuned model in MLflow."""

    adapter: Path
    """Adapter folder of `train`. The base model is stored as a reference; the server finds it as `generate` does."""
    name: str = "cxrreport"
    """Name of the registered model; created if it does not exist."""
    aliases: tuple[Alias, ...] = ()
    """Aliases to point to this version, for example `champion`."""
    scores: Path | None = None
    """Output folder of `evaluate` for the reports of this adapter; the version carries these scores."""
    if_better_than: Alias | None = None
    """Register only if the headline of `scores` is significantly above that of the version with this alias (paired
    permutation test by patient, p < 0.05), or if no version has it yet."""
    against: Path | None = None
    """Output folder of `evaluate` for that version; `None` for the folder that it was registered with."""
    batch_size: PositiveInt = 4
    """Rows of a request that are processed together."""
    max_new_tokens: PositiveInt = 256
    """Maximum report length in tokens."""
    max_pixels: PositiveInt = 30_000_000
    """Maximum rows x columns; larger images are refused. It bounds the size of a request and the memory for it."""
    max_rows: PositiveInt = 64
    """Maximum radiographs in one request."""
    tracking: TrackingSettings = TrackingSettings()
