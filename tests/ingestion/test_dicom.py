"""One DICOM file to one grey image, on real radiographs and on generated ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_reading import BUDGET, outcome, read, refusal
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless

from cxrreport.errors import PixelError
from cxrreport.ingestion.dicom.radiograph import read_header, read_radiograph
from cxrreport.ingestion.images.greyscale import GreyScale, Window, to_grey
from cxrreport.records import Reason, View

Make = Callable[..., Path]


# --- Real files ---


def test_uncompressed_and_jpeg_2000_of_one_chest_are_the_same_image(shared: Path) -> None:
    plain, packed = read(shared / "dicom/RG1_UNCR.dcm"), read(shared / "dicom/RG1_J2KR.dcm")
    assert np.array_equal(plain.grey, packed.grey)
    assert plain.grey.shape == (1955, 1841) == (plain.rows, plain.columns) and plain.grey.dtype == np.uint8
    assert plain.view is View.PA and plain.notes == () and plain.patient_id and plain.study_id
    # MONOCHROME1: the heart is brighter than the lung beside it only if the flip came after the window.
    assert plain.grey[1300:1500, 950:1100].mean() > plain.grey[700:900, 500:700].mean() + 50


def test_all_syntaxes_of_the_hip_are_the_same_image(shared: Path, copy_with: Make) -> None:
    names = ["RG2_RLE.dcm", "RG2_JPLL.dcm", "RG2_JLSL.dcm", "RG2_J2KR.dcm"]
    assert {refusal(shared / "dicom" / name).reason for name in names} == {Reason.NOT_CHEST}
    greys = [read(copy_with(shared / "dicom" / name, BodyPartExamined="CHEST")).grey for name in names]
    assert all(np.array_equal(greys[0], grey) for grey in greys[1:])


def test_monochrome1_label_on_the_same_pixels_is_the_inverse(shared: Path) -> None:
    second, first = read(shared / "dicom/Fake_MONOHR1.dcm"), read(shared / "dicom/rsna_6904.dcm")
    assert np.array_equal(first.grey, 255 - second.grey)
    assert first.notes == ("window-missing",)


def test_constant_real_file_is_refused(shared: Path) -> None:
    assert refusal(shared / "dicom/himl_constant_pixels.dcm").reason == Reason.CONSTANT


def test_lut_sequences_of_real_files(shared: Path) -> None:
    dental = read(shared / "dicom/CR-ModalitySequenceLUT.dcm")
    assert dental.grey.shape == (1576, 1976) and "bodypart-missing" in dental.notes
    modality, voi = read(shared / "dicom/mlut_18.dcm"), read(shared / "dicom/vlut_04.dcm")
    # One test pattern, once through a modality and once through a VOI LUT: both must show it, grey for grey.
    assert np.abs(modality.grey.astype(int) - voi.grey.astype(int)).max() <= 1
    assert "window-missing" in modality.notes and "window-missing" not in voi.notes


@pytest.mark.parametrize("stem", ["RG1", "RG3"])
def test_files_of_pydicom_data(stem: str, pydicom_file: Callable[[str], Path], copy_with: Make) -> None:
    names = [f"{stem}_UNCR.dcm", f"{stem}_J2KR.dcm", f"{stem}_J2KI.dcm"]
    plain, exact, lossy = (read(copy_with(pydicom_file(name), BodyPartExamined="CHEST")) for name in names)
    assert np.array_equal(plain.grey, exact.grey)
    assert np.abs(plain.grey.astype(int) - lossy.grey.astype(int)).mean() < 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CT_small.dcm", Reason.NOT_RADIOGRAPH),
        ("MR_small.dcm", Reason.NOT_RADIOGRAPH),
        ("RG3_UNCR.dcm", Reason.NOT_CHEST),
        ("SC_rgb_jpeg_dcmtk.dcm", Reason.COLOUR),
        ("rtplan.dcm", Reason.NO_PIXELS),
        ("reportsi.dcm", Reason.NO_PIXELS),
        ("README.txt", Reason.NOT_DICOM),
        ("zipMR.gz", Reason.NOT_DICOM),
    ],
)
def test_other_files_are_refused(name: str, reason: Reason, pydicom_file: Callable[[str], Path]) -> None:
    assert refusal(pydicom_file(name)).reason == reason


def test_every_file_of_pydicom_is_read_or_refused(pydicom_file: Callable[[str], Path]) -> None:
    files = [path for path in pydicom_file("CT_small.dcm").parent.rglob("*") if path.is_file()]
    assert len(files) > 50
    for path in files:
        found = outcome(path)
        assert isinstance(found, Reason) or found.dtype == np.uint8


# --- Generated files ---


def test_a_generated_file_is_windowed(make_file: Make, ramp: Callable[..., np.ndarray]) -> None:
    stored = ramp().astype(np.uint16)
    radiograph = read(make_file(stored))
    expected, _ = to_grey(stored, GreyScale(bits_stored=12, window=Window(2048, 4096)))
    assert np.array_equal(radiograph.grey, expected) and radiograph.notes == ()


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted", "notes"),
    [
        ("MONOCHROME2", None, False, ()),
        ("MONOCHROME2", "IDENTITY", False, ()),
        ("MONOCHROME2", "INVERSE", True, ("presentation-lut-inverse",)),
        ("MONOCHROME1", None, True, ()),
        ("MONOCHROME1", "INVERSE", True, ()),  # DX says both, and means one inversion
    ],
)
def test_polarity(make_file: Make, photometric: str, shape: str | None, inverted: bool, notes: tuple[str]) -> None:
    radiograph = read(make_file(PhotometricInterpretation=photometric, PresentationLUTShape=shape))
    assert bool(radiograph.grey[6, 6] == 0) is inverted and radiograph.notes == notes


@pytest.mark.parametrize("syntax", [RLELossless, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_transfer_syntaxes_give_the_same_image(
    make_dataset: Callable[..., Dataset], tmp_path: Path, syntax: str
) -> None:
    dataset = make_dataset()
    dataset.save_as(tmp_path / "plain.dcm", enforce_file_format=True)
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(tmp_path / "other.dcm", enforce_file_format=True)
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(tmp_path / "other.dcm", enforce_file_format=True, implicit_vr=False, little_endian=False)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(tmp_path / "other.dcm", enforce_file_format=True)
    assert np.array_equal(read(tmp_path / "plain.dcm").grey, read(tmp_path / "other.dcm").grey)


@pytest.mark.parametrize("implicit", [False, True])
def test_file_without_preamble_and_meta_is_read(
    make_dataset: Callable[..., Dataset], tmp_path: Path, implicit: bool
) -> None:
    dataset = make_dataset()
    del dataset.file_meta
    dataset.save_as(tmp_path / "bare.dcm", implicit_vr=implicit, little_endian=True)
    assert (tmp_path / "bare.dcm").read_bytes()[128:132] != b"DICM"
    assert read(tmp_path / "bare.dcm").grey.shape == (48, 40)


def test_secondary_captures_of_radiographs_only_are_accepted(make_file: Make) -> None:
    capture = "1.2.840.10008.5.1.4.1.1.7"
    assert read(make_file(SOPClassUID=capture, Modality="CR")).notes == ()
    assert read(make_file(SOPClassUID=capture, Modality="OT")).notes == ("modality-missing",)
    assert refusal(make_file(SOPClassUID=capture, Modality="CT")).reason == Reason.NOT_RADIOGRAPH


def test_body_part(make_file: Make) -> None:
    assert read(make_file(BodyPartExamined=None)).notes == ("bodypart-missing",)
    assert read(make_file(BodyPartExamined="PORT CHEST")).notes == ()
    assert read(make_file(BodyPartExamined="RIBS")).notes == ("bodypart-unclear",)
    assert refusal(make_file(BodyPartExamined="Left Knee")).reason == Reason.NOT_CHEST


def test_window_missing_invalid_and_blank_are_noted(make_file: Make) -> None:
    assert read(make_file(WindowCenter=None, WindowWidth=None)).notes == ("window-missing",)
    assert read(make_file(WindowWidth=0)).notes == ("window-invalid", "window-missing")
    assert read(make_file(WindowWidth=None)).notes == ("window-invalid", "window-missing")
    assert read(make_file(VOILUTFunction="CUBIC")).notes == ("window-invalid", "window-missing")
    assert read(make_file(WindowCenter=50000)).notes == ("window-blank",)
    assert read(make_file(WindowCenter=[2048, 50000], WindowWidth=[4096, 10])).notes == ()


def lut_item(keyword: str, descriptor: list[int], data: Any) -> dict[str, Any]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", descriptor)
    item.add_new("LUTData", "OW" if isinstance(data, bytes) else "US", data)
    return {keyword: Sequence([item])}


def test_luts_of_16_and_of_8_bits(make_file: Make) -> None:
    ramp16 = np.arange(4096, dtype="<u2").tobytes()
    wide = read(make_file(**lut_item("VOILUTSequence", [4096, 0, 12], ramp16)))
    assert np.abs(wide.grey.astype(int) - read(make_file()).grey).max() <= 1
    ramp8 = (np.arange(4096) // 16).astype(np.uint8)
    narrow = read(make_file(**lut_item("VOILUTSequence", [4096, 0, 8], ramp8.tobytes())))
    as_words = read(make_file(**lut_item("VOILUTSequence", [4096, 0, 8], ramp8.astype(int).tolist())))
    assert np.array_equal(narrow.grey, as_words.grey) and narrow.grey[6, 6] == 255


@pytest.mark.parametrize(
    ("descriptor", "data"),
    [([4096, 0, 12], b"\0\0" * 100), ([4096, 0], b"\0\0" * 4096), ([4096, 0, 40], b"\0\0" * 4096), ([0, 0, 16], b"")],
)
def test_broken_luts(make_file: Make, descriptor: list[int], data: bytes) -> None:
    error = refusal(make_file(**lut_item("ModalityLUTSequence", descriptor, data)))
    assert isinstance(error, PixelError) and error.reason == Reason.BAD_LUT
    assert read(make_file(**lut_item("VOILUTSequence", descriptor, data))).notes == ("voi-lut-broken",)
    without = {"WindowCenter": None, "WindowWidth": None}
    assert refusal(make_file(**lut_item("VOILUTSequence", descriptor, data), **without)).reason == Reason.BAD_LUT


def test_empty_lut_sequences_are_ignored(make_file: Make) -> None:
    assert read(make_file(VOILUTSequence=Sequence([]), ModalityLUTSequence=Sequence([]))).notes == ()


def test_a_window_is_chosen_by_index_or_explanation(make_file: Make) -> None:
    def grey(choice: int | str, **elements: Any) -> tuple[np.ndarray, tuple[str, ...]]:
        found = read_radiograph(make_file(**elements), max_pixels=BUDGET, window=choice)
        return found.grey, found.notes

    two = {
        "WindowCenter": [2048, 1000],
        "WindowWidth": [4096, 500],
        "WindowCenterWidthExplanation": ["NORMAL", "Harder"],
    }
    first, second = grey(0)[0], grey(0, WindowCenter=1000, WindowWidth=500)[0]
    assert not np.array_equal(first, second)
    for choice, expected, notes in (
        (0, first, ()),
        (1, second, ()),
        (2, first, ("window-choice-missing",)),
        ("normal", first, ()),
        (" harder", second, ()),
        ("SOFTER", first, ("window-choice-missing",)),
    ):
        found, said = grey(choice, **two)
        assert np.array_equal(found, expected) and said == notes, choice
    assert grey("NORMAL", WindowCenter=None, WindowWidth=None)[1] == ("window-missing",)


def test_a_voi_lut_is_chosen_by_index_or_explanation(make_file: Make) -> None:
    ramp16 = np.arange(4096, dtype="<u2")
    items = []
    for name, entries in (("SOFT", ramp16), ("HARD", np.minimum(4 * ramp16, 4095).astype("<u2"))):
        item = lut_item("VOILUTSequence", [4096, 0, 12], entries.tobytes())["VOILUTSequence"][0]
        item.LUTExplanation = name
        items.append(item)
    path = make_file(VOILUTSequence=Sequence(items), WindowCenterWidthExplanation="WINDOW")

    def grey(choice: int | str) -> tuple[np.ndarray, tuple[str, ...]]:
        found = read_radiograph(path, max_pixels=BUDGET, window=choice)
        return found.grey, found.notes

    assert np.array_equal(grey(1)[0], grey("HARD")[0]) and np.array_equal(grey(0)[0], grey("SOFT")[0])
    assert not np.array_equal(grey(0)[0], grey(1)[0])
    assert np.array_equal(grey("WINDOW")[0], read(make_file(name="plain.dcm")).grey)
    assert grey(5)[1] == ("window-choice-missing",) == grey("NONE")[1]


def test_a_voi_lut_that_promises_more_bits_than_it_has_is_not_dark(make_file: Make) -> None:
    entries = np.arange(4096, dtype="<u2").tobytes()
    found = read(make_file(**lut_item("VOILUTSequence", [4096, 0, 16], entries)))
    assert found.notes == ("voi-lut-bits",)
    assert np.array_equal(found.grey, read(make_file(**lut_item("VOILUTSequence", [4096, 0, 12], entries))).grey)


def test_rescale_moves_the_values_under_the_window(make_file: Make) -> None:
    moved = read(make_file(RescaleSlope=2, RescaleIntercept=-100, WindowCenter=3996, WindowWidth=8191))
    assert np.abs(moved.grey.astype(int) - read(make_file()).grey).max() <= 1
    assert refusal(make_file(RescaleSlope=0, RescaleIntercept=5)).reason == Reason.BAD_LUT


def test_ids_and_view_come_from_the_header(make_file: Make) -> None:
    path = make_file(PatientID=" P7 ", StudyInstanceUID="1.2.3", SOPInstanceUID="1.2.3.4", ViewPosition="LL")
    header = read_header(path, max_pixels=BUDGET)
    assert (header.patient_id, header.study_id, header.image_id, header.view) == (
        "P7",
        "1.2.3",
        "1.2.3.4",
        View.LATERAL,
    )
    nameless = read_header(make_file(PatientID=None, StudyInstanceUID=None, ViewPosition=None), max_pixels=BUDGET)
    assert (nameless.patient_id, nameless.study_id, nameless.view) == ("", "", View.UNKNOWN)


def test_padding_value_is_black(make_file: Make, ramp: Callable[..., np.ndarray]) -> None:
    stored = ramp().astype(np.uint16)
    stored[-5:] = 3999
    assert (read(make_file(stored, PixelPaddingValue=3999)).grey[-5:] == 0).all()
    assert (read(make_file(stored)).grey[-5:] > 200).all()


def test_32_bits_allocated(make_file: Make, ramp: Callable[..., np.ndarray]) -> None:
    wide = make_file(ramp().astype(np.uint32), BitsStored=12, HighBit=11)
    assert np.array_equal(read(wide).grey, read(make_file()).grey)
