"""Sequences in sequences, deeper than Python's recursion goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from plain_studies import write_study

from cxrreport.errors import RefusedImage
from cxrreport.ingestion.dicom import read_header, read_radiograph

OPEN = bytes.fromhex("08004011") + b"SQ\0\0" + bytes.fromhex("ffffffff feff00e0 ffffffff")
CLOSE = bytes.fromhex("feff0de0 00000000 feffdde0 00000000")


@pytest.mark.parametrize("depth", [100, 249, 1000, 20_000])
def test_deeply_nested_sequences_are_read_or_refused(depth: int, tmp_path: Path) -> None:
    path = tmp_path / "nested.dcm"
    write_study(path, 1)
    data = path.read_bytes()
    start = data.index(bytes.fromhex("08001600") + b"UI")
    path.write_bytes(data[:start] + OPEN * depth + CLOSE * depth + data[start:])
    for read in (read_header, read_radiograph):
        try:
            found = read(path, max_pixels=10_000).image_id
        except RefusedImage as error:
            found = error.reason
        assert found in ("1.2.3.1.1", "not-readable", "too-large")
