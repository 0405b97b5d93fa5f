"""The usual recipe from a DICOM file to a square image of 8 bits, as in tutorials and scripts for data sets.

It uses public functions of pydicom, NumPy and Pillow only. It inverts by the extremes of the image after windowing and
stretches to the range of the image, so the result is not the image that the file describes; only its time is compared.
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
