"""Sequences whose items are empty are absent, not broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from cxrreport.errors import PixelError
from cxrreport.ingestion.dicom.radiograph import read_radiograph
from cxrreport.ingestion.images import Radiograph
from cxrreport.records import View

Make = Callable[..., Any]


def item(**elements: Any) -> Dataset:
    found = Dataset()
    for keyword, value in elements.items():
        if keyword == "LUTDescriptor":
            found.add_new(0x00283002, "US", value)
        elif keyword == "LUTData":
            found.add_new(0x00283006, "OW", value)
        else:
            setattr(found, keyword, value)
    return found


LINEAR = np.arange(4096, dtype=np.uint16)
INVERSE = LINEAR[::-1].tobytes()
EMPTY = {
    "no element": item(),
    "empty elements": item(LUTDescriptor=None, LUTData=None),
    "empty bytes": item(LUTData=b"", LUTExplanation=""),
    "an explanation only": item(LUTExplanation="NORMAL"),
}
INCOMPLETE = {
    "no data": item(LUTDescriptor=[4096, 0, 12]),
    "no descriptor": item(LUTData=INVERSE),
    "empty data": item(LUTDescriptor=[4096, 0, 12], LUTData=b""),
    "too little data": item(LUTDescriptor=[4096, 0, 12], LUTData=b"\0\0"),
}


def read(make_file: Make, **elements: Any) -> Radiograph:
    return read_radiograph(make_file(**elements), max_pixels=10**6)


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("kind", EMPTY)
def test_an_item_without_a_table_is_absent(make_file: Make, keyword: str, kind: str) -> None:
    for others in ({}, {"RescaleSlope": 2, "RescaleIntercept": -5}, {"WindowCenter": None, "WindowWidth": None}):
        expected = read(make_file, **others)
        for count in (1, 3):
            items = Sequence([EMPTY[kind]] * count)
            image = read(make_file, **others, **{keyword: items})
            assert np.array_equal(image.grey, expected.grey) and image.notes == expected.notes


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_the_first_item_with_a_table_is_used(make_file: Make, keyword: str) -> None:
    table = item(LUTDescriptor=[4096, 0, 12], LUTData=INVERSE)
    expected = read(make_file, **{keyword: Sequence([table])})
    assert not np.array_equal(expected.grey, read(make_file).grey)
    assert np.array_equal(read(make_file, **{keyword: Sequence([item(), table])}).grey, expected.grey)


@pytest.mark.parametrize("kind", INCOMPLETE)
def test_a_truncated_table_is_damaged(make_file: Make, kind: str) -> None:
    broken = Sequence([INCOMPLETE[kind]])
    assert read(make_file, VOILUTSequence=broken).notes == ("voi-lut-broken",)
    with pytest.raises(PixelError, match="bad-lut"):
        read(make_file, ModalityLUTSequence=broken)


def test_other_sequences_and_elements_that_are_empty(make_file: Make) -> None:
    expected = read(make_file)
    empty = {
        "ViewCodeSequence": Sequence([Dataset()]),
        "PresentationLUTSequence": Sequence([Dataset()]),
        "SharedFunctionalGroupsSequence": Sequence([Dataset()]),
        "PerFrameFunctionalGroupsSequence": Sequence([item(PixelMeasuresSequence=Sequence([Dataset()]))]),
        "PresentationLUTShape": "",
        "RescaleSlope": "",
        "RescaleIntercept": "",
        "PixelPaddingValue": None,
        "VOILUTFunction": "",
        "PatientOrientation": "",
        "PixelSpacing": "",
        "PixelAspectRatio": "",
    }
    for keyword, value in empty.items():
        image = read(make_file, **{keyword: value})
        assert np.array_equal(image.grey, expected.grey) and image.notes == () and image.view is View.PA, keyword
    assert read(make_file, ViewPosition=None, ViewCodeSequence=Sequence([Dataset()])).view is View.UNKNOWN
