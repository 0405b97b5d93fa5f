"""Files that are refused by policy, each with its reason; `keep` turns the reason into a note."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless
from typer.testing import CliRunner

from cxrreport.cli import app
from cxrreport.errors import RefusedImage, SettingsError
from cxrreport.ingestion.dicom.pixel_data.codestream import frame_size
from cxrreport.ingestion.dicom.radiograph import read_header, read_radiograph
from cxrreport.ingestion.images.picture import read_picture
from cxrreport.ingestion.ingest import ingest
from cxrreport.settings import IngestSettings, build

Make = Callable[..., Any]
BUDGET = 60_000_000
RGB = np.stack([np.tile(np.arange(60, dtype=np.uint8) * factor, (50, 1)) for factor in (4, 2, 1)], axis=2)
LUMINANCE = np.rint(RGB @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def refusal(read: Callable[..., Any], path: Path, **options: Any) -> str:
    with pytest.raises(RefusedImage) as caught:
        read(path, max_pixels=options.pop("max_pixels", BUDGET), **options)
    return str(caught.value.reason)


def colours(make_dataset: Make, pixels: np.ndarray, **elements: Any) -> Dataset:
    values = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "BitsStored": 8}
    dataset: Dataset = make_dataset(pixels, HighBit=7, **(values | elements))
    return dataset


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "not-a-radiograph"),
        ({"Modality": "MG"}, "not-a-radiograph"),
        ({"BodyPartExamined": "KNEE"}, "not-a-chest"),
        ({"NumberOfFrames": 2}, "multi-frame"),
        ({"BurnedInAnnotation": "YES"}, "burned-in-annotation"),
    ],
)
def test_a_reason_becomes_a_note(make_file: Make, elements: dict[str, Any], reason: str) -> None:
    if reason == "multi-frame":
        first = make_file().read_bytes()[-2 * 48 * 40 :]
        elements = elements | {"PixelData": first + bytes(len(first))}
    path = make_file(name="b.dcm", **elements)
    assert refusal(read_header, path) == refusal(read_radiograph, path) == reason
    others = {"not-a-radiograph", "not-a-chest", "multi-frame", "colour", "burned-in-annotation"} - {reason}
    assert refusal(read_radiograph, path, keep=others) == reason
    kept = read_radiograph(path, max_pixels=BUDGET, keep=(reason,))
    assert kept.notes == (reason,)
    assert np.array_equal(kept.grey, read_radiograph(make_file(), max_pixels=BUDGET).grey)
    assert read_header(path, max_pixels=BUDGET, keep=(reason,)).notes == (reason,)


@pytest.mark.parametrize("form", ["interleaved", "planar", "YBR_FULL", "YBR_FULL_422", "RLE", "JPEG 2000", "palette"])
def test_colours_become_their_luminance(make_dataset: Make, write_dataset: Make, tmp_path: Path, form: str) -> None:
    ybr = np.stack([LUMINANCE, np.full_like(LUMINANCE, 90), np.full_like(LUMINANCE, 160)], axis=2)
    if form == "planar":
        dataset = colours(make_dataset, RGB, PlanarConfiguration=1, PixelData=RGB.transpose(2, 0, 1).tobytes())
    elif form == "YBR_FULL":
        dataset = colours(make_dataset, ybr, PhotometricInterpretation="YBR_FULL")
    elif form == "YBR_FULL_422":
        pairs = np.stack([LUMINANCE[:, ::2], LUMINANCE[:, 1::2], ybr[:, ::2, 1], ybr[:, ::2, 2]], axis=2)
        dataset = colours(make_dataset, ybr, PhotometricInterpretation="YBR_FULL_422", PixelData=pairs.tobytes())
    elif form == "palette":
        indices = np.tile(np.arange(60, dtype=np.uint8), (50, 1))
        dataset = colours(make_dataset, indices, SamplesPerPixel=1, PhotometricInterpretation="PALETTE COLOR")
        for colour, entries in zip(("Red", "Green", "Blue"), RGB[0].T, strict=True):
            setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [60, 0, 16])
            words = (entries.astype("<u2") << 8).tobytes()
            setattr(dataset, f"{colour}PaletteColorLookupTableData", words)
    else:
        dataset = colours(make_dataset, RGB)
        if form == "RLE":
            dataset.compress(RLELossless, generate_instance_uid=False)
        elif form == "JPEG 2000":
            Image.fromarray(RGB).save(tmp_path / "a.j2k", "JPEG2000", no_jp2=True)
            dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
            dataset.PhotometricInterpretation = "YBR_RCT"
            dataset.PixelData = encapsulate([(tmp_path / "a.j2k").read_bytes()])
            dataset["PixelData"].is_undefined_length = True
    path = write_dataset(tmp_path / "a.dcm", dataset)
    assert refusal(read_radiograph, path) == "colour"
    kept = read_radiograph(path, max_pixels=BUDGET, keep=("colour",))
    assert "colour" in kept.notes
    assert np.abs(kept.grey.astype(int) - LUMINANCE).max() <= 1


def test_colours_take_three_times_the_budget(make_dataset: Make, write_dataset: Make, tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "a.dcm", colours(make_dataset, RGB))
    assert refusal(read_radiograph, path, max_pixels=3 * 3000 - 1, keep=("colour",)) == "too-large"
    assert read_radiograph(path, max_pixels=3 * 3000, keep=("colour",)).rows == 50


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PhotometricInterpretation": "CMYK", "SamplesPerPixel": 4}, "bad-pixel-data"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 1}, "bad-pixel-data"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "bad-lut"),
    ],
)
def test_colours_that_cannot_be_read(make_file: Make, elements: dict[str, Any], reason: str) -> None:
    assert refusal(read_radiograph, make_file(**elements), keep=("colour",)) == reason


@pytest.mark.parametrize("rle", [False, True])
def test_the_first_of_several_frames(make_dataset: Make, write_dataset: Make, tmp_path: Path, rle: bool) -> None:
    first = np.tile(np.arange(64, dtype=np.uint16) * 50, (70, 1))
    frames = np.stack([first, first[:, ::-1], first.T[:64].repeat(2, 0)[:70, :64]])
    dataset = make_dataset(first, NumberOfFrames=3, PixelData=frames.tobytes())
    if rle:
        dataset.compress(RLELossless, generate_instance_uid=False)
    kept = read_radiograph(write_dataset(tmp_path / "a.dcm", dataset), max_pixels=BUDGET, keep=("multi-frame",))
    alone = read_radiograph(write_dataset(tmp_path / "b.dcm", make_dataset(first)), max_pixels=BUDGET)
    assert np.array_equal(kept.grey, alone.grey) and kept.notes == ("multi-frame",)


def test_every_form_of_one_real_colour_picture(pydicom_file: Make) -> None:
    names = ["SC_rgb", "SC_rgb_rle", "SC_rgb_16bit", "SC_rgb_rle_2frame", "SC_rgb_expb", "SC_ybr_full_uncompressed"]
    greys = [
        read_radiograph(pydicom_file(f"{name}.dcm"), max_pixels=BUDGET, keep=("colour", "multi-frame")).grey
        for name in names
    ]
    assert all(np.abs(greys[0].astype(int) - grey).max() <= 1 for grey in greys[1:])


def test_pictures_of_colours_and_of_frames(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    assert refusal(read_picture, tmp_path / "a.png") == "colour"
    kept = read_picture(tmp_path / "a.png", max_pixels=BUDGET, keep=("colour",))
    assert kept.notes == ("colour",) and np.abs(kept.grey.astype(int) - LUMINANCE).max() <= 1
    grey = Image.fromarray(LUMINANCE)
    grey.save(tmp_path / "b.png", save_all=True, append_images=[grey.rotate(180)])
    assert refusal(read_picture, tmp_path / "b.png") == "multi-frame"
    kept = read_picture(tmp_path / "b.png", max_pixels=BUDGET, keep=("multi-frame",))
    assert kept.notes == ("multi-frame",) and np.array_equal(kept.grey, LUMINANCE)


def test_the_setting_and_the_option(make_file: Make, tmp_path: Path) -> None:
    make_file(name="in/a.dcm", StudyInstanceUID="1.1", PatientID="A")
    make_file(name="in/b.dcm", StudyInstanceUID="1.2", PatientID="B", BodyPartExamined="HIP")
    frames = make_file(name="x.dcm").read_bytes()[-2 * 48 * 40 :] * 2
    make_file(name="in/c.dcm", StudyInstanceUID="1.3", PatientID="C", NumberOfFrames=2, PixelData=frames)
    plain = ingest(IngestSettings(input=tmp_path / "in", output=tmp_path / "plain", require_report=False))
    assert plain.left_out == {"multi-frame": 1, "not-a-chest": 1}
    words = ["ingest", "--input", str(tmp_path / "in"), "--output", str(tmp_path / "kept"), "--no-require-report"]
    done = CliRunner().invoke(app, [*words, "--no-track", "--keep", "multi-frame", "--keep", "not-a-chest"])
    assert done.exit_code == 0, done.output
    rows = pq.read_table(tmp_path / "kept/manifest.parquet").to_pylist()
    assert {row["study_id"]: row["notes"] for row in rows} == {
        "1.1": [],
        "1.2": ["not-a-chest"],
        "1.3": ["multi-frame"],
    }
    with pytest.raises(SettingsError, match="keep"):
        build(IngestSettings, {"input": "in", "output": "out", "keep": ["constant-image"]}, where="test")


# --- What a codestream may hide ---


def siz(rows: int, columns: int, components: int) -> bytes:
    size = struct.pack(">4I", columns, rows, 0, 0) * 2
    body = struct.pack(">HH", 38 + 3 * components, 0) + size + struct.pack(">H", components) + b"\7\1\1" * components
    return b"\xff\x4f\xff\x51" + body


def box(kind: bytes, contents: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(contents), kind) + contents


def test_the_size_is_read_where_decoders_read_it() -> None:
    signature = box(b"jP  ", b"\r\n\x87\n")
    hidden = signature + box(b"uuid", siz(48, 40, 1)) + box(b"jp2c", siz(40_000, 40_000, 1))
    assert frame_size(hidden) == (40_000, 40_000, 1)
    long = struct.pack(">I4sQ", 1, b"uuid", 20) + b"\0" * 4
    assert frame_size(signature + long + box(b"jp2c", siz(3, 4, 2))) == (3, 4, 2)
    assert frame_size(b"\xff\xd8\xff\xe0\x00\x40" + siz(48, 40, 1) + b"\0" * 99) is None  # inside a JPEG segment
    for broken in (signature, signature + box(b"uuid", b""), signature + b"\0" * 40, siz(9, 9, 1)[:30]):
        assert frame_size(broken) is None


def test_components_that_no_header_names_are_refused(make_dataset: Make, write_dataset: Make, tmp_path: Path) -> None:
    dataset = make_dataset()
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([siz(48, 40, 9000)])
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(RefusedImage, match="9000 components"):
        read_radiograph(write_dataset(tmp_path / "a.dcm", dataset), max_pixels=BUDGET)
