"""Detect frontal chest radiographs whose polarity contradicts their header.

Outside of the patient there is air, and beside the spine there are the lungs: in a picture in which bright is dense,
the upper corners are darker than the midline, and the lung fields too. Both are compared on either side, each with
a margin: a picture is called inverted only if all comparisons agree.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIDE = 64  # pixels of the reduced picture
CORNERS, LUNGS = 0.1, 0.05
"""Margins, fractions of the grey range; `docs/ingestion.md` has the measured rates."""


def looks_inverted(grey: NDArray[np.uint8]) -> bool:
    """Return whether both upper corners and both lung fields are clearly brighter than the midline.

    Args:
        grey: uint8[H, W] as displayed, upright; smaller pictures than 64 x 64 are never called inverted.
    """
    if min(grey.shape) < _SIDE:
        return False
    rows, columns = (np.linspace(0, side - 1, 4 * _SIDE).astype(np.intp) for side in grey.shape)
    blocks = grey[np.ix_(rows, columns)].reshape(_SIDE, 4, _SIDE, 4)
    small = blocks.mean(axis=(1, 3)) / 255.0
    midline = small[8:56, 28:36]
    corner = min(np.median(small[:6, :8]), np.median(small[:6, -8:]))
    lung = min(small[16:40, 12:24].mean(), small[16:40, 40:52].mean())
    return bool(corner - np.median(midline) > CORNERS and lung - midline.mean() > LUNGS)
