"""Settings of `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cxrreport.settings.base import Settings


class DemoSettings(Settings):
    """The whole pipeline on phantoms."""

    output: Path
    """Output folder."""
    resolution: Literal[224, 896] = 224
    """Side length of the images, in pixels."""
    patients: Annotated[int, Field(ge=20)] | None = None
    """Number of phantom patients, a fifth of them for testing; `None` for 960, or 120 at 896 pixels."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed of phantoms, training and intervals."""
