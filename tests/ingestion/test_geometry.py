"""Orientation and pixel shape, in all forms in which files state them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps
from pydicom.dataset import Dataset

from cxrreport.demo.phantoms.drawing import draw, expose, sample_anatomy
from cxrreport.ingestion.dicom import read_header, read_radiograph
from cxrreport.ingestion.dicom.reference import reopen
from cxrreport.ingestion.images import Radiograph, read_picture
from cxrreport.ingestion.images.geometry import Geometry
from cxrreport.ingestion.images.upright import orientation_notes
from cxrreport.ingestion.ingest import ingest
from cxrreport.records import Image as Row
from cxrreport.records import Split, View
from cxrreport.settings import IngestSettings

Make = Callable[..., Any]
BUDGET = 10_000_000

# For each orientation of a frontal, what has to be done to see the patient's right on the left and the head above.
FRONTALS = {
    ("L", "F"): lambda a: a,
    ("R", "F"): lambda a: a[:, ::-1],
    ("L", "H"): lambda a: a[::-1],
    ("R", "H"): lambda a: np.rot90(a, 2),
    ("F", "L"): lambda a: a.T,
    ("F", "R"): lambda a: np.rot90(a, -1),
    ("H", "L"): lambda a: np.rot90(a, 1),
    ("H", "R"): lambda a: np.rot90(a, 2).T,
}


def read(path: Path, **options: Any) -> Radiograph:
    return read_radiograph(path, max_pixels=BUDGET, **options)


@pytest.mark.parametrize("directions", FRONTALS)
@pytest.mark.parametrize("refined", [False, True])
def test_frontals_are_displayed_upright(make_file: Make, directions: tuple[str, str], refined: bool) -> None:
    stored = read(make_file()).grey
    stated = [direction + ("A" if refined else "") for direction in directions]
    image = read(make_file(PatientOrientation=stated))
    assert np.array_equal(image.grey, FRONTALS[directions](stored))
    assert (image.rows, image.columns) == image.grey.shape
    assert image.notes == (() if directions == ("L", "F") else ("orientation-applied",)) and image.view is View.PA


@pytest.mark.parametrize("across", ["A", "P", "AL", "PRH"])
@pytest.mark.parametrize(("down", "quarters"), [("F", 0), ("H", 2), ("across-F", -1), ("across-H", 1)])
def test_laterals_are_rotated_and_not_mirrored(make_file: Make, across: str, down: str, quarters: int) -> None:
    stored = read(make_file()).grey
    stated = [down[-1], across] if down.startswith("across") else [across, down]
    image = read(make_file(PatientOrientation=stated, ViewPosition=None))
    assert image.view is View.LATERAL and np.array_equal(image.grey, np.rot90(stored, quarters))


@pytest.mark.parametrize(
    "stated",
    [
        ["L"],
        ["L", "L"],
        ["L", "R"],
        ["L", "P"],
        ["X", "F"],
        ["LR", "F"],
        ["", "F"],
        ["L", "F", "H"],
        "LF",
        "L/F",
        ["9", "F"],
    ],
)
def test_invalid_directions_are_noted(make_file: Make, stated: Any) -> None:
    image = read(make_file(PatientOrientation=stated))
    assert np.array_equal(image.grey, read(make_file()).grey) and image.notes == ("orientation-unclear",)


def test_statements_in_other_words(make_file: Make) -> None:
    stored = read(make_file()).grey
    for missing in ("", ["", ""], None):
        assert read(make_file(PatientOrientation=missing)).notes == ()
    lower_case = read(make_file(PatientOrientation=[" r", "f "]))
    assert np.array_equal(lower_case.grey, stored[:, ::-1])
    by_cosines = read(make_file(ImageOrientationPatient=[-1, 0.1, 0, 0, 0, -1]))
    assert np.array_equal(by_cosines.grey, stored[:, ::-1])
    animal = read(make_file(PatientOrientation=["LE", "V"], AnatomicalOrientationType="QUADRUPED"))
    assert animal.notes == ("orientation-unclear",)
    frontal_seen_from_the_side = read(make_file(PatientOrientation=["A", "H"]))
    assert frontal_seen_from_the_side.notes == ("orientation-doubtful",)
    hand = read(make_file(PatientOrientation=["R", "F"], BodyPartExamined="HAND"), keep=("not-a-chest",))
    assert hand.notes == ("not-a-chest", "orientation-unclear") and np.array_equal(hand.grey, stored)
    frame, orientation = Dataset(), Dataset()
    orientation.PatientOrientation = ["L", "H"]
    frame.PatientOrientationInFrameSequence = [orientation]
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        assert np.array_equal(read(make_file(**{keyword: [frame]})).grey, stored[::-1])
        assert read(make_file(**{keyword: [Dataset()]})).notes == ()


def test_an_inverted_upside_down_frontal(make_file: Make) -> None:
    grey = np.rint(phantom() * 4095).astype(np.uint16)
    image = read(make_file(4095 - grey[::-1], PatientOrientation=["L", "H"]))
    assert image.notes == ("orientation-applied", "monochrome2-inverted")
    assert np.array_equal(image.grey, read(make_file(grey)).grey)


SPACINGS = [
    ({"PixelSpacing": [0.2, 0.1]}, 2.0, "pixels-not-square"),
    ({"ImagerPixelSpacing": [0.1, 0.2]}, 0.5, "pixels-not-square"),
    ({"NominalScannedPixelSpacing": [0.3, 0.2]}, 1.5, "pixels-not-square"),
    ({"PixelAspectRatio": [4, 3]}, 4 / 3, "pixels-not-square"),
    ({"PixelAspectRatio": [1, 1], "PixelSpacing": [0.1, 0.1005]}, 1.0, ""),
    ({"PixelSpacing": [0, 0], "PixelAspectRatio": [2, 1]}, 2.0, "pixels-not-square"),
    ({"PixelSpacing": [0.1, 0.1], "PixelAspectRatio": [2, 1]}, 1.0, "pixel-shape-unclear"),
    ({"PixelSpacing": [-0.1, 0.1]}, 1.0, "pixel-shape-unclear"),
    ({"PixelSpacing": [0.1]}, 1.0, "pixel-shape-unclear"),
    ({"PixelAspectRatio": [1, 0]}, 1.0, "pixel-shape-unclear"),
    ({"PixelAspectRatio": [1, 1000000]}, 1.0, "pixel-shape-unclear"),
]


@pytest.mark.parametrize(("elements", "ratio", "note"), SPACINGS)
def test_pixels_are_made_square(make_file: Make, elements: dict[str, Any], ratio: float, note: str) -> None:
    for directions, turned in ((["L", "F"], ()), (["F", "R"], ("orientation-applied",))):
        image = read(make_file(PatientOrientation=directions, **elements))
        height, width = (48 * ratio, 40) if not turned else (40, 48 * ratio)
        assert image.rows / image.columns == pytest.approx(height / width, rel=0.05)
        assert image.notes == turned + ((note,) if note else ())
        assert image.rows * image.columns == pytest.approx(48 * 40, rel=0.05)


def test_a_circle_remains_one(make_file: Make) -> None:
    y, x = np.mgrid[0:100, 0:200]
    ellipse = ((y - 50) / 40) ** 2 + ((x - 100) / 80) ** 2 < 1  # a circle of pixels that are twice as high as wide
    grey = read(make_file((ellipse * 4000).astype(np.uint16), PixelAspectRatio=[2, 1])).grey
    inside = np.argwhere(grey > 128)
    assert np.ptp(inside[:, 0]) == pytest.approx(np.ptp(inside[:, 1]), abs=1)


def test_export_finds_the_file_of_a_turned_image(make_file: Make) -> None:
    path = make_file(
        PatientOrientation=["F", "R"], PixelAspectRatio=[2, 1], SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2"
    )
    image, header = read(path), read_header(path, max_pixels=BUDGET)
    assert (header.rows, header.columns) == (48, 40) != (image.rows, image.columns)
    for rows, columns in ((48, 40), (image.rows, image.columns)):
        row = Row(
            image_id=image.image_id, study_id="1.2", patient_id="P", split=Split.TEST, view=View.PA,
            source="a", rows=rows, columns=columns,
        )  # fmt: skip
        reopen(path, row, max_pixels=BUDGET)


# --- Pictures ---


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_orientation(tmp_path: Path, orientation: int, kind: str) -> None:
    path, exif = tmp_path / f"a.{kind.lower()}", Image.Exif()
    exif[274] = orientation
    Image.fromarray((np.arange(480) % 251).astype(np.uint8).reshape(24, 20)).save(path, exif=exif)
    image = read_picture(path, max_pixels=BUDGET)
    assert np.array_equal(image.grey, np.asarray(ImageOps.exif_transpose(Image.open(path))))
    note = "orientation-applied" if orientation in range(2, 9) else "orientation-unclear"
    assert image.notes == (() if orientation == 1 else (note,))


@pytest.mark.parametrize(
    ("unit", "across", "down", "size", "notes"),
    [
        (0, 2, 1, (68, 28), ("pixels-not-square",)),
        (1, 100, 200, (34, 57), ("pixels-not-square",)),
        (0, 1, 1, (48, 40), ()),
        (1, 0, 0, (48, 40), ()),
        (0, 1, 9, (48, 40), ("pixel-shape-unclear",)),
    ],
)
def test_densities(tmp_path: Path, unit: int, across: int, down: int, size: tuple[int, int], notes: tuple[str]) -> None:
    picture = Image.fromarray((np.arange(1920) % 251).astype(np.uint8).reshape(48, 40))
    png, jpeg = io.BytesIO(), io.BytesIO()
    picture.save(png, "PNG")
    picture.save(jpeg, "JPEG")
    chunk = b"pHYs" + struct.pack(">IIB", across, down, unit)
    chunk = struct.pack(">I", 9) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(png.getvalue()[:33] + chunk + png.getvalue()[33:])
    header = jpeg.getvalue()
    (tmp_path / "a.jpg").write_bytes(header[:13] + struct.pack(">BHH", unit, across, down) + header[18:])
    for name in ("a.png", "a.jpg"):
        image = read_picture(tmp_path / name, max_pixels=BUDGET)
        assert image.grey.shape == size and image.notes == notes, name


def test_resolutions_in_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274], exif[282], exif[283] = 6, 144.0, 72.0
    Image.fromarray(np.arange(1920, dtype=np.uint16).reshape(48, 40).astype(np.uint8)).save(
        tmp_path / "a.jpg", exif=exif
    )
    image = read_picture(tmp_path / "a.jpg", max_pixels=BUDGET)
    assert image.grey.shape == (28, 68) and image.notes == ("orientation-applied", "pixels-not-square")


# --- The check on the picture ---


def phantom(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(expose(draw(sample_anatomy(rng), (), 128, 112, seed).grey, rng, noise=0.01), 0, 1)


def test_phantoms_in_all_orientations() -> None:
    found = []
    for seed in range(20):
        grey = np.rint(phantom(seed) * 255).astype(np.uint8)
        assert orientation_notes(grey, View.PA) == ()
        for quarters in (1, 2, 3):
            assert orientation_notes(np.rot90(grey, quarters), View.AP) == ("orientation-doubtful",)
            assert orientation_notes(np.rot90(grey, quarters)[:, ::-1], View.UNKNOWN) == ("orientation-doubtful",)
        assert orientation_notes(grey[::-1], View.LATERAL) == ()
        found.append(orientation_notes(np.ascontiguousarray(grey[:, ::-1]), View.PA))
    assert set(found) <= {(), ("side-doubtful",)} and ("side-doubtful",) in found


def test_a_wrong_header_is_noted(make_file: Make) -> None:
    grey = np.rint(phantom() * 4095).astype(np.uint16)
    assert read(make_file(grey, PatientOrientation=["L", "F"])).notes == ()
    image = read(make_file(grey, PatientOrientation=["H", "L"]))
    assert image.notes == ("orientation-applied", "orientation-doubtful")
    assert read(make_file(np.rot90(grey))).notes == ("orientation-doubtful",)


def test_pictures_without_structure_are_not_judged() -> None:
    ramp = np.tile(np.arange(128, dtype=np.uint8), (100, 1))
    noise = np.random.default_rng(0).integers(0, 256, (90, 90)).astype(np.uint8)
    for grey in (ramp, ramp.T, ramp[:, ::-1], noise, np.zeros((99, 99), np.uint8), np.full((70, 70), 255, np.uint8)):
        assert orientation_notes(np.ascontiguousarray(grey), View.PA) == ()
    assert Geometry().size(3, 5) == (3, 5) and Geometry(transpose=True, aspect=2.0).size(10, 10) == (14, 7)


@pytest.mark.parametrize("directions", FRONTALS)
def test_text_is_found_along_the_rows_of_the_file_too(make_file: Make, tmp_path: Path, directions: list[str]) -> None:
    picture = Image.fromarray(np.rint(phantom() * 255).astype(np.uint8)).resize((448, 512))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((8, 8, 300, 38), fill=0)
    pen.text((12, 12), "SMITH^JOHN 1961-04-12", fill=255, font_size=18)
    grey = np.asarray(picture).astype(np.uint16) * 16
    make_file(grey, PatientOrientation=list(directions), name="in/a.dcm")
    settings = IngestSettings(input=tmp_path / "in", output=tmp_path / "out", require_report=False)
    assert ingest(settings).notes["burned-in-text"] == 1
