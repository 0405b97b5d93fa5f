"""DICOM radiographs with ids that tests know, for tests that are not about DICOM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian


def write_study(path: Path, number: int, *, grey: int | None = None) -> Dataset:
    """One PA radiograph of patient `P<number>`, study `1.2.3.<number>` and image `1.2.3.<number>.1`.

    Args:
        path: of the file.
        number: of the patient.
        grey: value in the middle of the picture by which it is known; `None` for one that depends on the number.
    """
    pixels = np.tile(np.linspace(0, 3000, 64), (64, 1)).astype(np.uint16)
    pixels[16:48, 16:48] = 100 * number % 4096 if grey is None else grey
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", f"1.2.3.{number}.1"
    made.StudyInstanceUID, made.PatientID = f"1.2.3.{number}", f"P{number}"
    made.Modality, made.BodyPartExamined, made.ViewPosition = "CR", "CHEST", "PA"
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = pixels.shape
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.PixelData = pixels.tobytes()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return made


def write_studies(folder: Path, count: int) -> Path:
    """Files `0.dcm`, `1.dcm` and so on."""
    for number in range(count):
        write_study(folder / f"{number}.dcm", number)
    return folder
