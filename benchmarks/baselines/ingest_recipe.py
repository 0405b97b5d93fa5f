"""The usual recipe from a DICOM file to a square of 8 bits, as tutorials and data-set scripts have it.

Public functions of pydicom, NumPy and Pillow only. It flips after the window by the image's own extremes and stretches
to its own range: what it makes is not the image that the file describes, and only its time is compared.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels import apply_modality_lut, apply_voi_lut


def read(path: Path, resolution: int) -> NDArray[np.uint8]:
    """uint8[resolution, resolution] of one file."""
    dataset = pydicom.dcmread(path)
    values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float64)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = values.max() - values
    unit = (values - values.min()) / (values.max() - values.min())
    grey = Image.fromarray((unit * 255).astype(np.uint8))
    return np.asarray(grey.resize((resolution, resolution), Image.Resampling.BILINEAR))
