"""Settings of `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cxrreport.settings.base import Settings


class DemoSettings(Settings):
    """The whole pipeline on phantoms."""

    output: Path
    """Output folder."""
    resolution: Literal[224, 896] = 224
    """Side length of the images, in pixels."""
    patients: Annotated[int, Field(ge=20)] | None = None
    """Number of phantom patients, a fifth of them for testing; `None` for 960, 800 with `prior`, 120 at 896 pixels."""
    prior: bool = False
    """Patients with two studies of two views: what the lateral view and the prior study add, at 224 pixels."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed of phantoms, training and intervals."""

    @model_validator(mode="after")
    def _small_with_prior(self) -> Self:
        if self.prior and self.resolution != 224:
            raise ValueError("prior: the demo of pairs runs at 224 pixels; remove resolution")
        return self
