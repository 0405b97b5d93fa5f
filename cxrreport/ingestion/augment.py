"""Training-time augmentation with MONAI: what another exposure or another stance of the patient could have given.

Never a left-right flip: it would move the heart, and the report says on which side things are.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROTATION = 7.0
"""Largest rotation, degrees."""
SCALE = 0.08
"""Largest change of scale, fraction."""
SHIFT = 0.04
"""Largest shift, fraction of the side."""
GAMMA = (0.8, 1.25)
NOISE = 0.02
"""Largest standard deviation of Gaussian noise, fraction of the grey range."""


class Augmentation:
    """Small rotation, scale, shift, gamma and noise, the same for the same seed, sample and epoch.

    Args:
        seed: of the run; the draws of a sample depend on it, the sample's index and the epoch, and not on the order
            in which samples are taken or on how many workers take them.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._transforms: dict[int, Any] = {}

    def __call__(self, image: NDArray[np.uint8], sample_index: int, epoch: int) -> NDArray[np.uint8]:
        """Augment one image.

        Args:
            image: uint8[R, R]; left as it is.
            sample_index: place of the sample in the training split, from 0.
            epoch: from 0.

        Returns:
            uint8[R, R]; what moves in from outside is black.
        """
        transform = self._compose(image.shape[0])
        draw = np.random.SeedSequence([self.seed, sample_index, epoch]).generate_state(1)[0]
        transform.set_random_state(seed=int(draw))
        changed = transform(image[np.newaxis].astype(np.float32) / 255.0)
        unit: NDArray[np.float32] = np.clip(np.asarray(changed)[0], 0.0, 1.0)
        grey: NDArray[np.uint8] = np.rint(unit * 255.0).astype(np.uint8)
        return grey

    def _compose(self, resolution: int) -> Any:
        if resolution not in self._transforms:
            # MONAI brings torch along: it is loaded where it is used.
            transforms: Any = importlib.import_module("monai.transforms")
            shift = SHIFT * resolution
            self._transforms[resolution] = transforms.Compose(
                [
                    transforms.RandAffine(
                        prob=1.0,
                        rotate_range=math.radians(ROTATION),
                        scale_range=(SCALE, SCALE),
                        translate_range=(shift, shift),
                        mode="bilinear",
                        padding_mode="zeros",
                    ),
                    transforms.RandAdjustContrast(prob=1.0, gamma=GAMMA),
                    transforms.RandGaussianNoise(prob=1.0, mean=0.0, std=NOISE),
                ]
            )
        return self._transforms[resolution]

    def __getstate__(self) -> dict[str, Any]:
        return {"seed": self.seed, "_transforms": {}}
