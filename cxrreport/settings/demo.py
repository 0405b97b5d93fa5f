"""Settings of `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cxrreport.settings.base import Settings


class DemoSettings(Settings):
    """The whole road on phantoms."""

    output: Path
    """Folder for everything."""
    resolution: Literal[224, 896] = 224
    """Side of the images, pixels."""
    patients: Annotated[int, Field(ge=20)] | None = None
    """Phantom patients over all splits, a fifth of them for testing; None: 960, at 896 pixels 120."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of phantoms, training and intervals."""
