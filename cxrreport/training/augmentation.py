"""Small changes to training images, by MONAI: pose, exposure and noise.

Never a left-right flip: it would move the heart to the right and make every "left" of the report wrong.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from monai.transforms.compose import Compose
from monai.transforms.intensity.array import RandAdjustContrast, RandGaussianNoise
from monai.transforms.spatial.array import RandAffine

_DEGREE = math.pi / 180


class Augmentation:
    """Rotation up to 5 degrees, shift up to 3% and scale up to 5% of the side, gamma 0.8 to 1.25, noise of 1%.

    Args:
        resolution: side of the images, pixels.
        seed: of the run; together with the position in the run it decides every change.
    """

    def __init__(self, resolution: int, seed: int) -> None:
        self._seed = seed
        shift = 0.03 * resolution
        self._transform = Compose(
            [
                RandAffine(
                    prob=1.0,
                    rotate_range=(5 * _DEGREE,),
                    translate_range=(shift, shift),
                    scale_range=(0.05, 0.05),
                    mode="bilinear",
                    padding_mode="zeros",
                ),
                RandAdjustContrast(prob=1.0, gamma=(0.8, 1.25)),
                RandGaussianNoise(prob=0.5, std=0.01),
            ]
        )

    def __call__(self, image: npt.NDArray[np.uint8], position: int) -> npt.NDArray[np.uint8]:
        """Change one image.

        Args:
            image: uint8[R, R].
            position: place in the run, counted in samples.

        Returns:
            uint8[R, R]; the same for the same seed and position.
        """
        self._transform.set_random_state(seed=(self._seed * 1_000_003 + position) % 2**32)
        unit = np.asarray(self._transform(image[None].astype(np.float32) / 255.0))[0]
        grey: npt.NDArray[np.uint8] = np.clip(unit * 255.0 + 0.5, 0, 255).astype(np.uint8)
        return grey
