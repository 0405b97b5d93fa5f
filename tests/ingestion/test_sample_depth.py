"""Bits Stored is not the depth of the codestream: decoded at the latter and clipped, never wrapped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
from jpeg_ls import encode_pixel_data
from openjpeg.utils import encode_array
from pydicom.encaps import get_frame
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless
from transfer_syntaxes import RAMP_EXTENDED, by_gdcm, encapsulated

from cxrreport.ingestion.dicom.pixel_data.codestream import sample_format
from cxrreport.ingestion.dicom.pixel_data.decoding import decode
from cxrreport.ingestion.dicom.pixel_data.sample_values import stored_values
from cxrreport.ingestion.dicom.radiograph import read_radiograph

Make = Callable[..., Any]
SHAPE = (48, 40)


def codestream(syntax: UID, values: np.ndarray, precision: int, folder: Path, make_dataset: Make) -> bytes:
    if syntax == JPEG2000Lossless:
        return bytes(encode_array(values, bits_stored=precision))
    if syntax == JPEGLSLossless:
        unsigned = (values.astype(np.int64) & ((1 << precision) - 1)).astype(f"u{values.dtype.itemsize}")
        rows, columns = values.shape
        shape = {"rows": rows, "columns": columns, "samples_per_pixel": 1, "bits_stored": precision}
        return bytes(encode_pixel_data(unsigned.tobytes(), bits_allocated=8 * values.dtype.itemsize, **shape))
    dataset = make_dataset(values, BitsStored=precision, HighBit=precision - 1)
    dataset.save_as(folder / "plain.dcm", enforce_file_format=True)
    kind = gdcm.TransferSyntax.GetTSType(str(syntax))
    packed = by_gdcm(folder / "plain.dcm", folder / "packed.dcm", kind)
    return get_frame(pydicom.dcmread(packed).PixelData, 0, number_of_frames=1)


def limits(bits: int, signed: bool) -> tuple[int, int]:
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def every_value(bits: int, signed: bool) -> np.ndarray:
    low, high = limits(bits, signed)
    values = np.linspace(low, high, SHAPE[0] * SHAPE[1]).round().reshape(SHAPE)
    return values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1], ids=lambda uid: uid.keyword)
@pytest.mark.parametrize("precision", [2, 6, 7, 8, 10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_every_depth(syntax: UID, precision: int, signed: bool, make_dataset: Make, tmp_path: Path) -> None:
    values = every_value(precision, signed)
    stream = codestream(syntax, values, precision, tmp_path, make_dataset)
    for stored in {precision - 1, precision, precision + 1, 12} - {17}:
        for allocated in (8, 16):
            if stored > allocated:
                continue
            elements = {"BitsAllocated": allocated, "BitsStored": stored, "HighBit": stored - 1}
            dataset = make_dataset(np.zeros(SHAPE, np.uint16), PixelRepresentation=int(signed), **elements)
            path = encapsulated(dataset, tmp_path / "a.dcm", syntax, stream)
            decoded = decode(pydicom.dcmread(path), *SHAPE)
            assert np.array_equal(decoded, values.clip(*limits(stored, signed))), (stored, allocated)


@pytest.mark.parametrize("stored", [8, 9, 10, 11, 12, 14])
def test_jpeg_extended_of_12_bits(stored: int, make_dataset: Make, tmp_path: Path) -> None:
    def decoded(syntax: UID, **elements: Any) -> np.ndarray:
        path = encapsulated(make_dataset(**elements), tmp_path / "a.dcm", syntax, RAMP_EXTENDED)
        return decode(pydicom.dcmread(path), *SHAPE)

    full = decoded(JPEGExtended12Bit)
    less = decoded(JPEGExtended12Bit, BitsStored=stored, HighBit=stored - 1)
    assert full.max() > 4000 and np.array_equal(less, np.minimum(full, (1 << stored) - 1))
    assert np.array_equal(decoded(JPEGBaseline8Bit), full)  # another name for the same codestream


@pytest.mark.parametrize("signed", [False, True])
def test_jpeg_2000_whose_sign_is_not_that_of_the_header(signed: bool, make_dataset: Make, tmp_path: Path) -> None:
    values = every_value(12, signed)
    pattern = values.astype(np.int64) & 0xFFF
    other = pattern.astype(np.uint16) if signed else ((pattern ^ 0x800) - 0x800).astype(np.int16)
    stream = codestream(JPEG2000Lossless, other, 12, tmp_path, make_dataset)
    assert sample_format(stream) == (12, not signed)
    dataset = make_dataset(values, PixelRepresentation=int(signed))
    path = encapsulated(dataset, tmp_path / "a.dcm", JPEG2000Lossless, stream)
    assert np.array_equal(decode(pydicom.dcmread(path), *SHAPE), values)


def test_negative_values_that_are_not_extended_to_the_depth_of_the_codestream() -> None:
    samples = np.array([[0, 2047, 2048, 4095]], np.uint16)  # 12 bits in a codestream of 16
    assert stored_values(samples, 16, bits_stored=12, signed=True).tolist() == [[0, 2047, -2048, -1]]
    extended = np.array([[0, 2047, 0xF800, 0xFFFF]], np.uint16)
    assert stored_values(extended, 16, bits_stored=12, signed=True).tolist() == [[0, 2047, -2048, -1]]
    assert stored_values(samples, 12, bits_stored=12, signed=False) is samples


def test_zero_bit_depth(make_dataset: Make, tmp_path: Path) -> None:
    stream = codestream(JPEG2000Lossless, every_value(12, False), 12, tmp_path, make_dataset)
    path = encapsulated(make_dataset(every_value(12, False)), tmp_path / "a.dcm", JPEG2000Lossless, stream)
    for depth in (0x7F, 0xFF, 37):
        damaged = bytearray(stream)
        damaged[42] = depth
        path = encapsulated(make_dataset(every_value(12, False)), tmp_path / "a.dcm", JPEG2000Lossless, bytes(damaged))
        with pytest.raises(Exception, match="bad-pixel-data"):
            read_radiograph(path, max_pixels=10**6)
