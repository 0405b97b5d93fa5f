"""The public package `radreader` as a second opinion, over every radiograph that both can read.

It needs a GPLv3 decoder and is therefore a dependency of the tests alone. Where we differ on purpose, the table below
says from what, and by which clause.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from cxrreport.errors import RefusedImage
from cxrreport.ingestion.dicom.radiograph import read_radiograph
from cxrreport.records import Reason

radreader = pytest.importorskip("radreader", reason="radreader is not installed (extra dev)")

WINDOW_MISSING = "window-missing"
"""PS3.3 C.11.2.1.2 leaves open what is shown where a file has no window: radreader takes all that BitsStored can hold,
which is a dark picture where a detector uses a part of it; we scale between percentiles, and say so."""
REFUSED_BY_US = {
    "himl_constant_pixels.dcm": Reason.CONSTANT,  # one grey is no image; no clause of the standard is concerned
    "liver_1frame.dcm": Reason.BAD_PIXELS,  # segmentations of 1 bit per pixel (PS3.3 C.8.20): no radiograph has them
    "liver_expb_1frame.dcm": Reason.BAD_PIXELS,
}
KEEP = ("not-a-radiograph", "not-a-chest", "colour", "multi-frame", "burned-in-annotation")
"""Grey scale is what is compared: neither is asked here whether a file shows a chest."""
DOCUMENT = Path(__file__).parents[2] / "docs/ingestion.md"


def files() -> list[Path]:
    anchors = [get_testdata_file(name, download=False) for name in ("RG1_UNCR.dcm", "CT_small.dcm")]
    folders = [Path(str(anchor)).parent for anchor in anchors if anchor]
    folders.append(Path(__file__).parents[3] / "shared" / "data" / "dicom")
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.dcm")):
            found.setdefault(path.name, path)
    return list(found.values())


def theirs(path: Path, **options: Any) -> np.ndarray | str:
    """The picture, or the reason of the refusal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pixels: np.ndarray = radreader.read(path, qc="off", **options).pixels
        except radreader.RadReaderError as error:
            return str(error)
    return pixels


def ours(path: Path, keep: tuple[str, ...] = ()) -> tuple[np.ndarray | None, tuple[str, ...]]:
    try:
        found = read_radiograph(path, max_pixels=60_000_000, keep=keep)
    except RefusedImage as error:
        return None, (error.reason,)
    return found.grey / 255.0, found.notes


def test_no_pixel_further_than_a_grey_level_and_what_only_we_read() -> None:
    """Over every file of pydicom, pydicom-data and ../shared/data; the table of `docs/ingestion.md` counts the rest."""
    paths = files()
    if len(paths) < 100:
        pytest.skip("pydicom-data is not installed")
    compared, only_ours = 0, dict.fromkeys(("colours", "several frames", *ALONE), 0)
    for path in paths:
        (grey, notes), other = ours(path, KEEP), theirs(path)
        if isinstance(other, str):
            if grey is not None:
                only_ours[kind(other, path)] += 1
            continue
        if grey is None:
            assert REFUSED_BY_US.get(path.name) == notes[0], path.name
            continue
        difference = float(np.abs(grey - other).max())
        if WINDOW_MISSING in notes and difference > 1 / 255:
            continue
        assert difference <= 1 / 255, (path.name, notes, difference)
        compared += 1
    assert compared >= 30
    table = dict(re.findall(r"^\| ([^|`]*?)(?:, `\S+`)? \| (\d+) \|", DOCUMENT.read_text(encoding="utf-8"), re.M))
    assert {name: str(count) for name, count in only_ours.items()} == table


ALONE = {
    "JPEG Extended of 12 bits with a wrong scan header": "JPEG-lossy.dcm",
    "a number of frames that is no number": "badVR.dcm",
}


def kind(refusal: str, path: Path) -> str:
    """The row of the table that a file belongs to."""
    if "multi-frame" in refusal:
        return "several frames"
    if "not a grayscale image" in refusal:
        return "colours"
    return next(name for name, file in ALONE.items() if file == path.name)


def test_the_named_differences_are_all_there_are(make_file: Any) -> None:
    inverse = make_file(PresentationLUTShape="INVERSE")
    grey, notes = ours(inverse)
    other = theirs(inverse)
    # PS3.3 C.11.6.1.2: INVERSE says that the lowest P-Value is displayed at the highest luminance.
    assert grey is not None and isinstance(other, np.ndarray) and notes == ("presentation-lut-inverse",)
    assert np.abs(grey - (1 - other)).max() <= 1 / 255
    missing = make_file(WindowCenter=None, WindowWidth=None, BitsStored=16, HighBit=15)
    grey, notes = ours(missing)
    other = theirs(missing)
    assert grey is not None and isinstance(other, np.ndarray) and notes == (WINDOW_MISSING,)
    assert other.max() < 0.1 and grey.max() == 1.0


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": 1000, "WindowWidth": 700},
        {"WindowCenter": 1000, "WindowWidth": 200},
        {"VOILUTFunction": "LINEAR_EXACT"},
        {"VOILUTFunction": "SIGMOID", "WindowWidth": 900},
        {"RescaleSlope": 2.5, "RescaleIntercept": -240, "WindowCenter": 4000, "WindowWidth": 8000},
        {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 900, "WindowWidth": 1500},
        {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 40},
        {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 0},
    ],
)
def test_made_files(make_file: Any, elements: dict[str, Any]) -> None:
    path = make_file(**elements)
    (grey, _), other = ours(path), theirs(path)
    assert grey is not None and isinstance(other, np.ndarray)
    assert np.abs(grey - other).max() <= 1 / 255


@pytest.mark.parametrize("choice", [0, 1, "HARDER"])
def test_choice_of_a_window(make_file: Any, choice: int | str) -> None:
    path = make_file(
        WindowCenter=[2048, 1000],
        WindowWidth=[4096, 1500],
        WindowCenterWidthExplanation=["NORMAL", "HARDER"],
    )
    options = {"window": choice} if isinstance(choice, str) else {"window_index": choice}
    grey = read_radiograph(path, max_pixels=10**6, window=choice).grey / 255.0
    other = theirs(path, **options)
    assert isinstance(other, np.ndarray) and np.abs(grey - other).max() <= 1 / 255
