"""The header of a source DICOM file, reopened so that a report can refer to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from cxrreport.errors import RefusedImage
from cxrreport.ingestion.dicom.bounded_file import opened
from cxrreport.ingestion.dicom.elements import text, translated, whole
from cxrreport.ingestion.dicom.geometry import GEOMETRY_TAGS, geometry_of
from cxrreport.records import Image, Reason

_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_EMPTY_ALLOWED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)
"""Type 2 of the modules Patient and General Study (PS3.3 C.7.1.1, C.7.2.1): required, may be empty."""
_SHAPE = ("Rows", "Columns", "NumberOfFrames", *GEOMETRY_TAGS)


def identify(source: Path | bytes, keywords: Sequence[str], *, max_pixels: int) -> dict[str, str]:
    """The first value of some elements of a DICOM file as text; empty where missing. Pixels are not read.

    Args:
        source: the file, or its content.
        keywords: of the elements.
        max_pixels: as in `IngestSettings`; bounds the size of the file.

    Raises:
        RefusedImage: it is not a DICOM file, or cannot be parsed.
    """
    with opened(source, max_pixels) as file, translated(Reason.NOT_READABLE, "the data set cannot be parsed"):
        bounded: Any = file  # pydicom only uses read, seek and tell
        dataset = pydicom.dcmread(bounded, stop_before_pixels=True, force=True, specific_tags=list(keywords))
        return {keyword: text(dataset, keyword) for keyword in keywords}


def reopen(path: Path, image: Image, *, max_pixels: int) -> Dataset:
    """Read identity, patient and study of a source file; missing type 2 elements are added, empty.

    Args:
        path: location of `image.source`.
        image: its manifest row.
        max_pixels: as in `IngestSettings`.

    Raises:
        RefusedImage: `image-file-missing`; `source-changed` if the file is not the image that was ingested; or
            the reason why it is not a DICOM image.
    """
    if not path.is_file():
        raise RefusedImage(Reason.IMAGE_MISSING, "the source is not where ingest found it")
    with opened(path, max_pixels) as file, translated(Reason.NOT_READABLE, "the data set cannot be parsed"):
        source: Any = file  # pydicom only uses read, seek and tell
        wanted: list[Any] = [*_IDENTITY, *_EMPTY_ALLOWED, *_SHAPE, "Modality"]
        dataset = pydicom.dcmread(source, stop_before_pixels=True, force=True, specific_tags=wanted)
        for keyword in _EMPTY_ALLOWED:
            if dataset.get(keyword) is None:
                setattr(dataset, keyword, "")
        stored = whole(dataset, "Rows") or 0, whole(dataset, "Columns") or 0
        displayed = geometry_of(dataset).size(*stored)
    for keyword in _IDENTITY:
        if not UID(text(dataset, keyword)).is_valid:
            raise RefusedImage(Reason.NOT_READABLE, f"{keyword} is missing or not valid")
    # Manifests of 0.1.0 have the size as stored.
    if (image.rows, image.columns) not in {stored, displayed}:
        raise RefusedImage(Reason.SOURCE_CHANGED, "its size differs from the ingested image")
    if UID(image.image_id).is_valid and "." in image.image_id and image.image_id != text(dataset, "SOPInstanceUID"):
        raise RefusedImage(Reason.SOURCE_CHANGED, "its SOPInstanceUID differs from the ingested image")
    return dataset
