"""RLE Lossless (PS3.5 Annex G), decoded within the memory that the header allows.

A run of two bytes stands for up to 128, so a frame may grow 64-fold, and usual decoders first let it and then compare.
Here a segment stops growing when it has as many bytes as there are pixels.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cxrreport.errors import PixelError
from cxrreport.records import Reason

_HEADER = 64  # bytes: number of segments, and 15 offsets


def decode_rle(
    frame: bytes, rows: int, columns: int, allocated: int, stored: int, *, signed: bool, samples: int = 1
) -> NDArray[np.integer]:
    """Decode one frame.

    Args:
        frame: RLE header and segments, the most significant bytes of all pixels first (PS3.5 G.2, G.5).
        rows: pixels.
        columns: pixels.
        allocated: bits per pixel: 8, 16 or 32.
        stored: the lowest of them that count; the rest is not looked at (PS3.5 8.1.1).
        signed: the pixels are two's complement.
        samples: values per pixel; those of one colour after those of the other (PS3.5 G.2).

    Returns:
        integer[rows, columns] of `allocated` bits, for colour integer[rows, columns, samples].

    Raises:
        PixelError: `bad-pixel-data`: the header is not one, or segments are missing or too short.
    """
    width, pixels = allocated // 8, rows * columns
    planes = samples * width
    if len(frame) < _HEADER:
        raise PixelError(Reason.BAD_PIXELS, f"{len(frame)} bytes are no RLE frame")
    count, *offsets = np.frombuffer(frame, "<u4", 16).tolist()
    if count != planes:
        raise PixelError(Reason.BAD_PIXELS, f"{count} RLE segments for {planes} bytes per pixel")
    starts = [*offsets[:planes], len(frame)]
    if starts[0] < _HEADER or sorted(starts) != starts:
        raise PixelError(Reason.BAD_PIXELS, "the offsets of the RLE segments are not in their order")
    values = np.empty((pixels, planes), np.uint8)
    for plane, (start, end) in enumerate(pairwise(starts)):
        segment = _unpack(frame[start:end], pixels)
        if len(segment) < pixels:
            raise PixelError(Reason.BAD_PIXELS, f"{len(segment)} of {pixels} bytes in an RLE segment")
        values[:, plane] = np.frombuffer(segment, np.uint8, pixels)
    kind, shape = f"{'i' if signed else 'u'}{width}", (rows, columns) + ((samples,) if samples > 1 else ())
    decoded: NDArray[np.integer] = values.view(f">{kind}").astype(kind).reshape(shape)
    if stored < allocated:
        decoded <<= allocated - stored
        decoded >>= allocated - stored
    return decoded


def _unpack(segment: bytes, wanted: int) -> bytearray:
    """Undo PackBits (PS3.5 G.3.2) until the segment ends or `wanted` bytes are there; at most 127 more come out."""
    result = bytearray()
    position, end = 0, len(segment)
    while position < end and len(result) < wanted:
        control = segment[position]
        if control < 128:
            result += segment[position + 1 : position + 2 + control]
            position += 2 + control
        elif control > 128:
            result += segment[position + 1 : position + 2] * (257 - control)
            position += 2
        else:  # 128: nothing
            position += 1
    return result
