"""What a DICOM header states about the orientation of a radiograph and the shape of its pixels.

The header describes the pixels: EXIF, JFIF and JP2 boxes within a codestream state nothing (PS3.5 8.2). Field of View
Rotation and Horizontal Flip (0018,7032 and 0018,7034) relate the picture to the detector and have been applied to the
pixels already (PS3.3 C.8.11.4).
"""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from cxrreport.ingestion.dicom.elements import numbers, text, texts
from cxrreport.ingestion.images.geometry import DOUBTFUL, UNCLEAR, Geometry, of_directions
from cxrreport.ingestion.images.views import view_of
from cxrreport.records import View

GEOMETRY_TAGS = [
    *("PatientOrientation", "AnatomicalOrientationType", "ImageOrientationPatient"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ViewPosition", "ViewCodeSequence"),
]
_PIXEL_SHAPE = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
"""Height first, then width. An aspect ratio only counts without a spacing (PS3.3 C.7.6.3.1.7)."""
_MACROS = ("PatientOrientationInFrameSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")


def directions_of(dataset: Dataset) -> list[str]:
    """The directions of rows and columns, by Patient Orientation or, without it, by Image Orientation (Patient).

    Returns:
        Letters of PS3.3 C.7.6.1.1.1 in capitals; an empty list if nothing is stated.
    """
    for item in _items(dataset):
        stated = [value.upper() for value in texts(item, "PatientOrientation")]
        if any(stated):
            return stated
    for item in _items(dataset):
        cosines = numbers(item, "ImageOrientationPatient")
        directions = [_direction(cosines[:3]), _direction(cosines[3:])] if len(cosines) == 6 else []
        if {"H", "F"}.intersection(directions):  # a slice across the body has no side that is up
            return directions
    return []


def view_in(dataset: Dataset, *, by_directions: bool = True) -> View:
    """The view by View Position and View Code Sequence, and otherwise by the directions of rows and columns."""
    codes = dataset.get("ViewCodeSequence") or [Dataset()]
    directions = directions_of(dataset) if by_directions else ()
    return view_of(text(dataset, "ViewPosition"), text(codes[0], "CodeMeaning"), directions)


def geometry_of(dataset: Dataset) -> Geometry:
    """The geometry of the first frame; `dataset` has `GEOMETRY_TAGS`.

    A frontal, by its view, whose rows or columns run between front and back is doubtful and not turned.
    """
    directions = directions_of(dataset)
    if text(dataset, "AnatomicalOrientationType").upper() == "QUADRUPED" and directions:
        geometry = Geometry(notes=(UNCLEAR,))  # other letters (PS3.3 C.7.6.1.1.1), and no radiographs of patients
    else:
        geometry = of_directions(directions)
        frontal = view_in(dataset, by_directions=False) in {View.PA, View.AP}
        if frontal and UNCLEAR not in geometry.notes and any(direction[:1] in {"A", "P"} for direction in directions):
            geometry = Geometry(notes=(DOUBTFUL,))
    return geometry.with_pixels(_ratios(dataset))


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """The data set, and the functional groups of its first frame (PS3.3 C.7.6.16)."""
    yield dataset
    for keyword in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for groups in list(dataset.get(keyword) or ())[:1]:
            for macro in _MACROS:
                yield from list(groups.get(macro) or ())[:1]


def _direction(cosines: list[float]) -> str:
    """The dominant direction; empty if two are equal."""
    sizes = [abs(value) for value in cosines]
    axis = sizes.index(max(sizes))
    return ("LPH" if cosines[axis] > 0 else "RAF")[axis] if sizes.count(max(sizes)) == 1 else ""


def _ratios(dataset: Dataset) -> Iterator[float | None]:
    for keyword in _PIXEL_SHAPE:
        for item in _items(dataset):
            found = numbers(item, keyword)
            if item.get(keyword) not in (None, "") and found != [0.0, 0.0]:  # written where it is not known
                yield found[0] / found[1] if len(found) == 2 and min(found) > 0 else None
                break
