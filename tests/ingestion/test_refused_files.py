"""DICOM files that are refused, truncated, or larger than they may be."""

from __future__ import annotations

import io
import logging
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicom_reading import outcome, read, refusal
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from cxrreport.errors import RefusedImage
from cxrreport.records import Reason

Make = Callable[..., Path]


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PixelData": None}, Reason.NO_PIXELS),
        ({"PixelData": b""}, Reason.NO_PIXELS),
        ({"PixelData": b"\1\2" * 100}, Reason.BAD_PIXELS),
        ({"Rows": 46341, "Columns": 46341}, Reason.TOO_LARGE),
        ({"Rows": 0}, Reason.BAD_PIXELS),
        ({"Rows": None}, Reason.NO_PIXELS),
        ({"NumberOfFrames": 3}, Reason.MULTI_FRAME),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, Reason.COLOUR),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.COLOUR),
        ({"PhotometricInterpretation": None}, Reason.BAD_PIXELS),
        ({"BitsAllocated": 12}, Reason.BAD_PIXELS),
        ({"HighBit": 15}, Reason.BAD_PIXELS),
        ({"BurnedInAnnotation": "YES"}, Reason.BURNED_IN),
        ({"Modality": "MG"}, Reason.NOT_RADIOGRAPH),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, Reason.NOT_RADIOGRAPH),
    ],
)
def test_refusals(make_file: Make, elements: dict[str, Any], reason: Reason) -> None:
    assert refusal(make_file(**elements)).reason == reason


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nothing.dcm").reason == Reason.UNAVAILABLE
    assert refusal(tmp_path).reason == Reason.NOT_READABLE
    (tmp_path / "empty.dcm").write_bytes(b"")
    assert refusal(tmp_path / "empty.dcm").reason == Reason.NOT_DICOM
    (tmp_path / "magic.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    assert refusal(tmp_path / "magic.dcm").reason in {Reason.NOT_READABLE, Reason.NOT_DICOM}


def test_every_truncation_of_a_real_file_is_refused_or_read(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    dataset = make_dataset()
    dataset.compress(RLELossless)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    whole, path = buffer.getvalue(), tmp_path / "cut.dcm"
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        refusal(path)


def test_truncated_jpeg_2000_is_refused_or_read(shared: Path, tmp_path: Path) -> None:
    whole = (shared / "dicom/RG1_J2KR.dcm").read_bytes()
    path = tmp_path / "cut.dcm"
    for share in (0.02, 0.5):
        path.write_bytes(whole[: int(len(whole) * share)])
        found = outcome(path)
        assert found in {Reason.BAD_PIXELS, Reason.NOT_READABLE} if isinstance(found, Reason) else found.size == 3599155


def test_codestream_that_is_larger_than_the_header_says_is_refused(shared: Path, copy_with: Make) -> None:
    error = refusal(copy_with(shared / "dicom/RG1_J2KR.dcm", Rows=64, Columns=64))
    assert error.reason == Reason.BAD_PIXELS and "1955 x 1841" in error.detail


def test_deep_nesting_is_refused_or_read(make_dataset: Callable[..., Dataset], tmp_path: Path) -> None:
    # Undefined lengths, which pydicom can only pass by reading what is inside.
    level = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    body = level * 3000
    dataset = make_dataset()
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    whole = (tmp_path / "a.dcm").read_bytes()
    at = whole.index(b"\x10\x00\x10\x00PN")
    (tmp_path / "deep.dcm").write_bytes(whole[:at] + body + whole[at:])
    refusal(tmp_path / "deep.dcm")


def test_lengths_that_promise_gigabytes_allocate_nothing(make_file: Make) -> None:
    path = make_file()
    whole = path.read_bytes()
    at = whole.index(b"\xe0\x7f\x10\x00OW")
    path.write_bytes(whole[: at + 8] + b"\xf0\xff\xff\xff" + whole[at + 12 :])
    tracemalloc.start()
    outcome(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000


def test_deflate_bomb_is_refused(make_dataset: Callable[..., Dataset], tmp_path: Path) -> None:
    dataset = make_dataset()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    whole = (tmp_path / "a.dcm").read_bytes()
    length = int.from_bytes(whole[140:144], "little")
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = (packer.compress(b"\0" * (1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)) * 40 + packer.flush()
    (tmp_path / "bomb.dcm").write_bytes(whole[: 144 + length] + packed)
    tracemalloc.start()
    error = refusal(tmp_path / "bomb.dcm")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.reason == Reason.TOO_LARGE and peak < 100_000_000


def test_errors_contain_no_patient_data(
    make_file: Make, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = "CANARY^JOHN"
    paths = [
        make_file(name="a.dcm", StudyInstanceUID=canary, WindowWidth=4096),
        make_file(name="b.dcm", BodyPartExamined=canary, Modality=canary),
        make_file(name="c.dcm", PhotometricInterpretation=canary),
        make_file(name="d.dcm", VOILUTFunction=canary),
    ]
    messages = []
    caplog.clear()  # pydicom has warned when the files were made
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for path in paths:
            try:
                read(path)
            except RefusedImage as error:
                messages.append(f"{error!r} {error.__cause__!r}")
    said = (
        " ".join(messages) + caplog.text + " ".join(str(each.message) for each in caught) + "".join(capfd.readouterr())
    )
    assert "CANARY" not in said and caught == []
    assert pydicom.config.settings.reading_validation_mode == pydicom.config.WARN
