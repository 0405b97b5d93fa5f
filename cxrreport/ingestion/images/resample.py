"""From a full-size radiograph to the square that the model sees."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def to_square(
    grey: NDArray[np.uint8],
    *,
    resolution: int,
    resize: Literal["squash", "pad"] = "squash",
    interpolation: Literal["bilinear", "bicubic"] = "bilinear",
) -> NDArray[np.uint8]:
    """Resample with antialiasing: when reducing, the support of Pillow's filters grows with the factor.

    Args:
        grey: uint8[H, W].
        resolution: side of the square, pixels.
        resize: `squash` does not keep the aspect; `pad` keeps it and pads to the square with black, image centred.
        interpolation: shape of the filter.

    Returns:
        uint8[resolution, resolution].
    """
    image = Image.fromarray(grey)
    if resize == "squash":
        return np.asarray(image.resize((resolution, resolution), _FILTERS[interpolation]))
    scale = resolution / max(image.size)
    columns, rows = (max(1, round(side * scale)) for side in image.size)
    square = np.zeros((resolution, resolution), dtype=np.uint8)
    top, left = (resolution - rows) // 2, (resolution - columns) // 2
    square[top : top + rows, left : left + columns] = np.asarray(image.resize((columns, rows), _FILTERS[interpolation]))
    return square
