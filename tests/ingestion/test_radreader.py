"""The public package `radreader` as a second opinion, over every radiograph that both can read.

It needs a GPLv3 decoder and is therefore a dependency of the tests alone. Where we differ on purpose, the table below
says from what, and by which clause.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from cxrreport.errors import RefusedImage
from cxrreport.ingestion import dicom
from cxrreport.ingestion.dicom import read_radiograph
from cxrreport.records import Reason

radreader = pytest.importorskip("radreader", reason="radreader is not installed (extra dev)")

WINDOW_MISSING = "window-missing"
"""PS3.3 C.11.2.1.2 leaves open what is shown where a file has no window: radreader takes all that BitsStored can hold,
which is a dark picture where a detector uses a part of it; we scale between percentiles, and say so."""
REFUSED_BY_US = {
    "himl_constant_pixels.dcm": Reason.CONSTANT,  # one grey is no image; no clause of the standard is concerned
}


def files() -> list[Path]:
    anchor = get_testdata_file("RG1_UNCR.dcm", download=False)
    found = sorted(Path(str(anchor)).parent.glob("*.dcm")) if anchor else []
    shared = Path(__file__).parents[3] / "shared" / "data" / "dicom"
    names = {path.name for path in found}
    return found + [path for path in sorted(shared.glob("*.dcm")) if path.name not in names]


def theirs(path: Path, **options: Any) -> np.ndarray | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pixels: np.ndarray = radreader.read(path, qc="off", **options).pixels
        except radreader.RadReaderError:
            return None
    return pixels


def ours(path: Path) -> tuple[np.ndarray | None, tuple[str, ...]]:
    try:
        found = read_radiograph(path, max_pixels=60_000_000)
    except RefusedImage as error:
        return None, (error.reason,)
    return found.grey / 255.0, found.notes


def test_no_pixel_further_than_a_grey_level(monkeypatch: pytest.MonkeyPatch) -> None:
    # Grey scale is what is compared: neither knows hips from chests here, nor radiographs from slices.
    monkeypatch.setattr(dicom, "check_body_part", lambda part: ())
    monkeypatch.setattr(dicom, "check_modality", lambda **header: ())
    if not files():
        pytest.skip("neither pydicom-data nor ../shared/data is here")
    compared = 0
    for path in files():
        (grey, notes), other = ours(path), theirs(path)
        if grey is None and other is not None:
            assert REFUSED_BY_US.get(path.name) == notes[0], path.name
        if grey is None or other is None:
            continue
        difference = float(np.abs(grey - other).max())
        if WINDOW_MISSING in notes and difference > 1 / 255:
            continue
        assert difference <= 1 / 255, (path.name, notes, difference)
        compared += 1
    assert compared >= 15


def test_the_named_differences_are_all_there_are(make_file: Any) -> None:
    inverse = make_file(PresentationLUTShape="INVERSE")
    grey, notes = ours(inverse)
    other = theirs(inverse)
    # PS3.3 C.11.6.1.2: INVERSE says that the lowest P-Value is displayed at the highest luminance.
    assert grey is not None and other is not None and notes == ("presentation-lut-inverse",)
    assert np.abs(grey - (1 - other)).max() <= 1 / 255
    missing = make_file(WindowCenter=None, WindowWidth=None, BitsStored=16, HighBit=15)
    grey, notes = ours(missing)
    other = theirs(missing)
    assert grey is not None and other is not None and notes == (WINDOW_MISSING,)
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
    assert grey is not None and other is not None
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
    assert other is not None and np.abs(grey - other).max() <= 1 / 255
