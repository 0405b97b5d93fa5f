"""From the samples of a codestream to stored values: codestream and header may differ in depth and sign."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
    if signed != has_sign:
        wide: NDArray[np.integer] = samples.astype(np.int64)
        if signed:
            sign_bit = 1 << ((bits_stored if most < 1 << bits_stored < 1 << precision else precision) - 1)
            wide = (wide ^ sign_bit) - sign_bit
        else:
            wide &= (1 << precision) - 1
    elif least < low or most > high:
        wide = samples
    else:
        return samples
    size = 1 if bits_stored <= 8 else 2 if bits_stored <= 16 else 4
    fitting: NDArray[np.integer] = np.clip(wide, low, high).astype(f"{'i' if signed else 'u'}{size}")
    return fitting
