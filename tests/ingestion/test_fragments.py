"""Encapsulated frames in fragments, with right, wrong, short and missing offset tables, in every syntax."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.encaps import get_frame
from pydicom.uid import UID, JPEG2000Lossless, JPEGExtended12Bit, JPEGLossless, JPEGLSLossless, RLELossless
from transfer_syntaxes import in_syntax

from cxrreport.errors import PixelError
from cxrreport.ingestion.dicom.pixel_data.fragments import first_frame
from cxrreport.ingestion.dicom.radiograph import read_radiograph

Make = Callable[..., Any]
SYNTAXES = [RLELossless, JPEGLossless, JPEGLSLossless, JPEG2000Lossless, JPEGExtended12Bit]


def item(value: bytes, tag: bytes = b"\xfe\xff\x00\xe0") -> bytes:
    return tag + struct.pack("<I", len(value)) + value


def cut(frame: bytes, parts: int) -> list[bytes]:
    size = -(-len(frame) // parts // 2) * 2
    pieces = [frame[start : start + size] for start in range(0, len(frame), size)]
    return [piece + b"\0" * (len(piece) % 2) for piece in pieces]


def positions(fragments: list[bytes]) -> list[int]:
    return [sum(8 + len(fragment) for fragment in fragments[:index]) for index in range(len(fragments))]


def tables(fragments: list[bytes]) -> dict[str, bytes | None]:
    """Basic Offset Tables by kind; None leaves even the empty item out."""
    offsets = positions(fragments)

    def packed(*values: int) -> bytes:
        return item(struct.pack(f"<{len(values)}I", *values))

    return {
        "empty": item(b""),
        "right": packed(0),
        "per fragment": packed(*offsets),
        "short": packed(*offsets[:-1]),
        "wrong": packed(4711, 7, 0),
        "descending": packed(*reversed(offsets)),
        "odd length": item(b"\0\0\0\0\1\0"),
        "missing": None,
    }


def packed(fragments: list[bytes], table: bytes | None) -> bytes:
    return (table or b"") + b"".join(map(item, fragments)) + item(b"", b"\xfe\xff\xdd\xe0")


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_all_fragments_are_the_single_frame(make_dataset: Make, tmp_path: Path, syntax: UID, parts: int) -> None:
    whole = in_syntax(make_dataset(), tmp_path, syntax)
    expected = read_radiograph(whole, max_pixels=10**6).grey
    dataset = pydicom.dcmread(whole)
    fragments = cut(get_frame(dataset.PixelData, 0, number_of_frames=1), parts)
    for kind, table in tables(fragments).items():
        for frames in (1, None):
            dataset.NumberOfFrames = frames
            dataset.PixelData = packed(fragments, table)
            dataset.save_as(tmp_path / "cut.dcm")
            assert np.array_equal(read_radiograph(tmp_path / "cut.dcm", max_pixels=10**6).grey, expected), kind
    dataset.ExtendedOffsetTable = struct.pack(f"<{len(fragments)}Q", *positions(fragments))
    dataset.ExtendedOffsetTableLengths = struct.pack(f"<{len(fragments)}Q", *map(len, fragments))
    dataset.save_as(tmp_path / "cut.dcm")
    assert np.array_equal(read_radiograph(tmp_path / "cut.dcm", max_pixels=10**6).grey, expected)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("parts", [1, 3])
def test_the_first_of_several_frames(make_dataset: Make, tmp_path: Path, syntax: UID, parts: int) -> None:
    if syntax == RLELossless and parts > 1:
        pytest.skip("a frame of RLE is one fragment (PS3.5 A.4.2)")
    whole = in_syntax(make_dataset(), tmp_path, syntax)
    expected = read_radiograph(whole, max_pixels=10**6).grey
    dataset = pydicom.dcmread(whole)
    first = cut(get_frame(dataset.PixelData, 0, number_of_frames=1), parts)
    fragments, dataset.NumberOfFrames = first + first[:1] + first[:1], 3
    offsets = positions(fragments)
    starts = [0, offsets[len(first)], offsets[len(first) + 1]]
    right = item(struct.pack("<3I", *starts))
    for kind, table in {**tables(fragments), "right": right}.items():
        dataset.PixelData = packed(fragments, table)
        dataset.save_as(tmp_path / "cut.dcm")
        image = read_radiograph(tmp_path / "cut.dcm", max_pixels=10**6, keep=("multi-frame",))
        assert np.array_equal(image.grey, expected), kind
    for extended in (starts, starts[:2], [9, 9, 9]):
        dataset.ExtendedOffsetTable = struct.pack(f"<{len(extended)}Q", *extended)
        dataset.save_as(tmp_path / "cut.dcm")
        image = read_radiograph(tmp_path / "cut.dcm", max_pixels=10**6, keep=("multi-frame",))
        assert np.array_equal(image.grey, expected)


@pytest.mark.parametrize(
    "data", [b"", item(b""), item(b"\0\0\0\0"), item(b"") + item(b""), b"\xfe\xff\x00", item(b"") + b"x" * 9]
)
def test_no_fragment(data: bytes) -> None:
    with pytest.raises(PixelError, match="bad-pixel-data"):
        first_frame(data, 1)


def test_a_fragment_that_is_cut_off(make_dataset: Make, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(in_syntax(make_dataset(), tmp_path, JPEGLSLossless))
    data = packed(cut(get_frame(dataset.PixelData, 0, number_of_frames=1), 3), item(b""))
    assert first_frame(data[:-8], 1) == first_frame(data, 1)  # without the delimiter
    for end in range(16, len(data) - 8, 97):
        dataset.PixelData = data[:end]
        dataset.save_as(tmp_path / "cut.dcm")
        with pytest.raises(Exception, match=r"bad-pixel-data|no-pixels|not-readable"):
            read_radiograph(tmp_path / "cut.dcm", max_pixels=10**6)
