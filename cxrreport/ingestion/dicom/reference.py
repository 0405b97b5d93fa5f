"""The header of a source DICOM file, reopened so that a report can refer to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from cxrreport.errors import RefusedImage
from cxrreport.ingestion.dicom.bounded_file import opened
from cxrreport.ingestion.dicom.elements import text, translated, whole
from cxrreport.records import Image, Reason

_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_EMPTY_ALLOWED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)
"""Type 2 of the modules Patient and General Study (PS3.3 C.7.1.1, C.7.2.1): have to be there, may be empty."""
_SHAPE = ("Rows", "Columns", "NumberOfFrames")


def reopen(path: Path, image: Image, *, max_pixels: int) -> Dataset:
    """Identity, patient and study of a source file; every type 2 element is there, empty where the file has none.

    Args:
        path: where `image.source` lies.
        image: as `ingest` saw it.
        max_pixels: as in `IngestSettings`.

    Raises:
        RefusedImage: `image-file-missing`; `source-changed` where another image lies there than the one that was
            ingested; or a reason for which the file is no DICOM image.
    """
    if not path.is_file():
        raise RefusedImage(Reason.IMAGE_MISSING, "the source is not where ingest found it")
    with opened(path, max_pixels) as file, translated(Reason.NOT_READABLE, "the data set cannot be parsed"):
        source: Any = file  # pydicom asks for no more than read, seek and tell
        wanted: list[Any] = [*_IDENTITY, *_EMPTY_ALLOWED, *_SHAPE]
        dataset = pydicom.dcmread(source, stop_before_pixels=True, force=True, specific_tags=wanted)
        for keyword in _EMPTY_ALLOWED:
            if dataset.get(keyword) is None:
                setattr(dataset, keyword, "")
    for keyword in _IDENTITY:
        if not UID(text(dataset, keyword)).is_valid:
            raise RefusedImage(Reason.NOT_READABLE, f"{keyword} is missing or not valid")
    if (whole(dataset, "Rows"), whole(dataset, "Columns")) != (image.rows, image.columns):
        raise RefusedImage(Reason.SOURCE_CHANGED, "another size than when it was ingested")
    if UID(image.image_id).is_valid and "." in image.image_id and image.image_id != text(dataset, "SOPInstanceUID"):
        raise RefusedImage(Reason.SOURCE_CHANGED, "another SOPInstanceUID than when it was ingested")
    return dataset
