"""One decoded radiograph, whatever kind of file it was read from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrreport.records import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Radiograph:
    """One radiograph as it is displayed.

    Args:
        grey: uint8[rows, columns]; bright is dense, whatever the polarity of the file; upright and with square pixels,
            if the file says what is needed for that (`geometry.Geometry`).
        transposed: rows were columns in the file.
        patient_id: as in `dicom.Header`, like `study_id`, `image_id`, `identity` and `says_no_text`.
        notes: those of `Header`; those of `dicom.greyscale.grey_scale` and `greyscale.to_grey`; and
            `monochrome2-inverted`, `orientation-doubtful`.
    """

    grey: NDArray[np.uint8]
    rows: int
    columns: int
    view: View
    transposed: bool = False
    patient_id: str = ""
    study_id: str = ""
    image_id: str = ""
    identity: str = ""
    says_no_text: bool = False
    notes: tuple[str, ...] = ()
