"""JPEG of 8 bits, decoded by libjpeg-turbo in the way in which it does not conceal damage."""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray

MAX_SCANS = 200
"""Scans of one picture: progressive encoders write about 10. A scan of a few bytes goes over the whole picture."""
SCAN = b"\xff\xda"
"""Begins a scan; in compressed data, FF is followed by 00 or a restart marker."""


def decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    """Decode a baseline, extended or progressive JPEG of 8 bits.

    Pillow calls the same library and ignores its warnings, so that grey or shifted blocks stand for what is damaged.

    Args:
        data: the file or codestream.

    Returns:
        uint8[rows, columns]: the grey values, or for colours their luminance.

    Raises:
        ValueError: the data are cut off or damaged, no such JPEG, or have more than `MAX_SCANS` scans.
    """
    if data.count(SCAN) > MAX_SCANS:
        raise ValueError(f"more than {MAX_SCANS} scans")
    decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "GRAY", strict=True)
    return decoded[:, :, 0]
