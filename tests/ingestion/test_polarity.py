"""Pictures with black and white exchanged are found, and none is called so that is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrreport.ingestion.dicom.radiograph import read_radiograph
from cxrreport.ingestion.images.polarity import looks_inverted


def chest(side: int = 256) -> np.ndarray:
    """Grey in [0, 1]: a body, two dark lungs, a bright midline, dark corners."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    body = 0.8 * np.exp(-((x / 0.85) ** 6)) * (y > -0.75)
    lungs = sum(0.5 * np.exp(-(((x - at) / 0.25) ** 2) - ((y + 0.1) / 0.5) ** 2) for at in (-0.45, 0.45))
    return np.clip(body - lungs + 0.05, 0, 1)


def test_inverted_monochrome2_is_turned_and_noted(make_file: Callable[..., Path]) -> None:
    stored = (chest() * 4095).astype(np.uint16)
    right = read_radiograph(make_file(stored), max_pixels=10**6)
    wrong = read_radiograph(make_file(4095 - stored), max_pixels=10**6)
    assert right.notes == () and wrong.notes == ("monochrome2-inverted",)
    assert np.abs(right.grey.astype(int) - wrong.grey).max() <= 1
    # What says that it is inverted is believed.
    told = make_file(4095 - stored, PhotometricInterpretation="MONOCHROME1")
    assert read_radiograph(told, max_pixels=10**6).notes == ()
    lateral = make_file(4095 - stored, ViewPosition="LL")
    assert read_radiograph(lateral, max_pixels=10**6).notes == ()


def test_padding_stays_black_when_turned(make_file: Callable[..., Path]) -> None:
    stored = 4095 - (chest() * 4000).astype(np.uint16)
    stored[-9:] = 1
    turned = read_radiograph(make_file(stored, PixelPaddingValue=1), max_pixels=10**6)
    assert "monochrome2-inverted" in turned.notes and (turned.grey[-9:] == 0).all()


@pytest.mark.parametrize("picture", [np.zeros((99, 99)), np.eye(99), np.tile(np.linspace(0, 1, 99), (99, 1))])
def test_pictures_of_other_bodies_are_unchanged(picture: np.ndarray) -> None:
    grey = (picture * 255).astype(np.uint8)
    assert not looks_inverted(grey) and not looks_inverted(255 - grey)


def test_real_radiographs(shared: Path) -> None:
    """No picture is called inverted that is not, and nine of ten are found when they are."""
    found, count = 0, 0
    for path in sorted((shared / "covid_cxr").rglob("*.*")) + sorted((shared / "openi").rglob("*.png")):
        if path.suffix.lower() not in {".png", ".jpg", ".jpeg"}:
            continue
        with Image.open(path) as image:
            grey = np.asarray(image.convert("L"))
        assert not looks_inverted(grey), path.name
        found += looks_inverted(255 - grey)
        count += 1
    assert count > 60 and found >= 0.9 * count
