"""Settings of `register`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from cxrreport.settings.base import PositiveInt, Settings
from cxrreport.settings.tracking import TrackingSettings


class RegisterSettings(Settings):
    """A fine-tuned model as a version of a registered MLflow model, to be served."""

    adapter: Path
    """Adapter folder of `train`. The base checkpoint stays a reference: the server finds it as `generate` does."""
    name: str = "cxrreport"
    """Name of the registered model; made when it does not exist."""
    aliases: tuple[Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")], ...] = ()
    """Names that point to this version from now on, e.g. `champion`."""
    batch_size: PositiveInt = 4
    """Rows of a request that run together."""
    max_new_tokens: PositiveInt = 256
    """Longest report, tokens."""
    max_pixels: PositiveInt = 60_000_000
    """Largest rows x columns that is decoded; larger ones are refused."""
    tracking: TrackingSettings = TrackingSettings()
