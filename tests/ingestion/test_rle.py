"""RLE frames, whole and hostile: what pydicom makes of them, within bounded memory."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from pydicom.pixels.encoders.native import _encode_frame  # the writer of the library, as a check on our reader

from cxrreport.errors import PixelError
from cxrreport.ingestion.dicom.rle import decode_rle


def header(*offsets: int) -> bytes:
    return struct.pack("<16I", len(offsets), *offsets, *[0] * (15 - len(offsets)))


class _Runner:
    """What pydicom's encoder wants to know."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.rows, self.columns = pixels.shape
        self.samples_per_pixel, self.bits_allocated = 1, 8 * pixels.dtype.itemsize

    def get_option(self, name: str, default: object = None) -> object:
        return {"byteorder": "<"}.get(name, default)


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<i2", "<u4"])
def test_what_pydicom_writes_is_read(dtype: str) -> None:
    draw = np.random.default_rng(1)
    pixels = draw.integers(-9 if "i" in dtype else 0, 120, (37, 53)).astype(dtype)
    pixels[10:20] = 7  # long runs
    frame = _encode_frame(pixels.tobytes(), _Runner(pixels))
    decoded = decode_rle(
        bytes(frame), 37, 53, 8 * pixels.itemsize, 8 * pixels.itemsize, signed=pixels.dtype.kind == "i"
    )
    assert np.array_equal(decoded, pixels) and decoded.dtype == pixels.dtype


def test_bits_beyond_bits_stored_do_not_count() -> None:
    segment = bytes([129, 0xFF])  # a run of 128
    decoded = decode_rle(header(64, 66) + segment * 2, 8, 16, 16, 12, signed=False)
    assert (decoded == 0x0FFF).all()
    assert (decode_rle(header(64, 66) + segment * 2, 8, 16, 16, 12, signed=True) == -1).all()


def test_a_frame_that_grows_64_fold_takes_no_more_than_its_header_says() -> None:
    bomb = header(64) + bytes([129, 1]) * 2_000_000  # 256 MB
    tracemalloc.start()
    decoded = decode_rle(bomb, 100, 100, 8, 8, signed=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (decoded == 1).all() and peak < 10_000_000


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\0" * 64,
        header(64, 70) + b"\x81\1" * 9,  # two segments for 8 bits
        header(70_000) + b"\x81\1" * 9,  # beyond the end
        header(3) + b"\x81\1" * 9,  # in the header
        header(64) + b"\x81\1",  # too short
        header(64) + b"\x81",  # cut within a run
        header(64) + b"\x80" * 99,  # nothing but nothing
    ],
)
def test_broken_frames(frame: bytes) -> None:
    with pytest.raises(PixelError):
        decode_rle(frame, 16, 16, 8, 8, signed=False)
