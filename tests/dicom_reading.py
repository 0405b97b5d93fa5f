"""A file that is read as a radiograph, or the reason of its refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cxrreport.errors import RefusedImage
from cxrreport.ingestion.dicom.radiograph import read_radiograph
from cxrreport.records import Reason

BUDGET = 60_000_000


def read(path: Path, max_pixels: int = BUDGET) -> Any:
    return read_radiograph(path, max_pixels=max_pixels)


def refusal(path: Path, max_pixels: int = BUDGET) -> RefusedImage:
    with pytest.raises(RefusedImage) as caught:
        read(path, max_pixels)
    assert caught.value.reason in set(Reason)
    assert "CANARY" not in str(caught.value)
    return caught.value


def outcome(path: Path) -> Any:
    """The image, or the reason of the refusal; any other exception fails the test."""
    try:
        return read(path).grey
    except RefusedImage as error:
        return Reason(error.reason)
