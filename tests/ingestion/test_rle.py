"""RLE frames, intact and hostile: decoded by pydicom after a length check, within bounded memory."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from cxrreport.errors import PixelError
from cxrreport.ingestion.dicom.pixel_data.damage import rle_fault
from cxrreport.ingestion.dicom.pixel_data.decoding import decode


def header(*offsets: int) -> bytes:
    return struct.pack("<16I", len(offsets), *offsets, *[0] * (15 - len(offsets)))


def image(frame: bytes, shape: tuple[int, int], allocated: int = 8, stored: int = 8, signed: bool = False) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.Rows, dataset.Columns = shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.PixelRepresentation = allocated, stored, int(signed)
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = encapsulate([frame])
    return dataset


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<i2"])
def test_every_pixel_type_is_read(dtype: str) -> None:
    draw = np.random.default_rng(1)
    pixels = draw.integers(-9 if "i" in dtype else 0, 120, (37, 53)).astype(dtype)
    pixels[10:20] = 7  # long runs
    bits = 8 * pixels.itemsize
    dataset = image(b"\0\0", pixels.shape, bits, bits, pixels.dtype.kind == "i")
    dataset.SamplesPerPixel = 1
    dataset.SOPInstanceUID = "1.2.3"
    dataset.compress(RLELossless, pixels, encoding_plugin="pydicom", generate_instance_uid=False)
    decoded = decode(dataset, *pixels.shape)
    assert np.array_equal(decoded, pixels) and decoded.dtype == pixels.dtype


def test_32_bits_are_read_most_significant_byte_first() -> None:
    segments = b"".join(bytes([129, value]) for value in (1, 2, 3, 4))
    assert (decode(image(header(64, 66, 68, 70) + segments, (8, 16), 32, 32), 8, 16) == 0x01020304).all()


@pytest.mark.parametrize(("signed", "value"), [(False, 0x0FFF), (True, -1)])
def test_bits_above_bits_stored_are_ignored(signed: bool, value: int) -> None:
    segment = bytes([129, 0xFF])  # a run of 128
    assert (decode(image(header(64, 66) + segment * 2, (8, 16), 16, 12, signed), 8, 16) == value).all()


def test_padding_after_the_last_pixel_is_dropped() -> None:
    assert (decode(image(header(64) + bytes([129, 3, 0, 0]), (8, 16)), 8, 16) == 3).all()


def test_a_frame_that_expands_64_fold_is_refused_before_it_takes_memory() -> None:
    dataset = image(header(64) + bytes([129, 1]) * 10_000, (100, 100))  # 20 kB, expands to 1.28 MB
    tracemalloc.start()
    with pytest.raises(PixelError, match="expands to 1280000 bytes instead of 10000"):
        decode(dataset, 100, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_operations_without_effect_are_refused_before_they_take_time() -> None:
    dataset = image(header(64) + bytes([128]) * 40_000 + bytes([129, 3]) * 2, (16, 16))
    with pytest.raises(PixelError, match="40068 bytes of RLE for 256 pixels"):
        decode(dataset, 16, 16)


def test_length_and_rows_of_a_segment() -> None:
    literal, run, nothing = b"\2abc", b"\xfex", b"\x80"  # each of 3 bytes, but the last
    assert rle_fault(header(64) + literal + run + nothing + literal, 3, 3) == ""
    assert "expands to 9 bytes instead of 12" in rle_fault(header(64) + literal + run + literal, 4, 3)
    assert rle_fault(header(64) + literal * 4, 3, 4) == ""  # of a writer that knows no rows
    assert "2 of 16 rows" in rle_fault(header(64) + literal * 12 + b"\3abcd" + b"\4abcde" + literal, 16, 3)
    assert "cut off" in rle_fault(header()[:60], 3, 3)


@pytest.mark.parametrize(
    "frame",
    [
        b"\0\0",
        b"\0" * 64,
        header(64, 70) + b"\x81\1" * 9,  # two segments for 8 bits
        header(70_000) + b"\x81\1" * 9,  # beyond the end
        header(3) + b"\x81\1" * 9,  # in the header
        struct.pack("<16I", 16, *[64] * 15) + b"\x81\1" * 9,  # more segments than offsets
        header(64) + b"\x81\1",  # too short
        header(64) + b"\x81",  # cut within a run
        header(64) + b"\x80" * 99,  # no operation at all
    ],
)
def test_broken_frames(frame: bytes) -> None:
    with pytest.raises(PixelError):
        decode(image(frame, (16, 16)), 16, 16)
