"""The package `radreader`, from a DICOM file to a square image of 8 bits.

Its checks of header and pixels are on by default, like ours; without them it is fastest. It returns float32 in [0, 1];
rounding to 8 bits and resampling by Pillow are left to its caller.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import radreader
from numpy.typing import NDArray
from PIL import Image


def read(path: Path, resolution: int, *, checks: bool = True) -> NDArray[np.uint8]:
    """uint8[resolution, resolution] of one file."""
    unit = radreader.read(path, qc="on" if checks else "off").pixels
    grey = Image.fromarray(np.rint(unit * np.float32(255)).astype(np.uint8))
    return np.asarray(grey.resize((resolution, resolution), Image.Resampling.BILINEAR))
