"""From the samples of a codestream to stored values: codestream and header may differ in depth and sign."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROWS = 64  # rows at a time: in between, a value takes 8 bytes


def stored_values(
    samples: NDArray[np.integer], precision: int, *, bits_stored: int, signed: bool
) -> NDArray[np.integer]:
    """Samples at the depth of the codestream to values within Bits Stored (0028,0101), clipped and never wrapped.

    A lossy codestream exceeds the range of what was encoded. JPEG and JPEG-LS have no sign: negative values are two's
    complement at the depth of the codestream, or at that of the header if no sample uses more bits.

    Args:
        samples: unsigned[...], or signed for a JPEG 2000 codestream with a sign; within `precision` bits.
        precision: bits per sample that the codestream declares.
        bits_stored: of the header.
        signed: Pixel Representation (0028,0103) is 1.

    Returns:
        integer[...] of the sign of the header.
    """
    low, high = (-(1 << (bits_stored - 1)), (1 << (bits_stored - 1)) - 1) if signed else (0, (1 << bits_stored) - 1)
    least, most = int(samples.min()), int(samples.max())
    has_sign = samples.dtype.kind == "i"
    if signed == has_sign and low <= least and most <= high:
        return samples
    sign_bit = 1 << ((bits_stored if most < 1 << bits_stored < 1 << precision else precision) - 1)
    size = 1 if bits_stored <= 8 else 2 if bits_stored <= 16 else 4
    values = np.empty(samples.shape, f"{'i' if signed else 'u'}{size}")
    for start in range(0, len(samples), _ROWS):
        wide = samples[start : start + _ROWS].astype(np.int64)
        if signed and not has_sign:
            wide = (wide ^ sign_bit) - sign_bit
        elif has_sign and not signed:
            wide &= (1 << precision) - 1
        values[start : start + _ROWS] = wide.clip(low, high)
    return values
