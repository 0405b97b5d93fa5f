"""Radiographs made by the tests, and where real ones lie."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


@pytest.fixture
def pydicom_file() -> Callable[[str], Path]:
    """A file of pydicom or of the package pydicom-data by its name; never downloaded."""
    from pydicom.data import get_testdata_file

    def find(name: str) -> Path:
        path = get_testdata_file(name, download=False)
        if path is None:
            pytest.skip(f"{name} is not installed (pydicom-data)")
        return Path(str(path))

    return find


def ramp(rows: int = 48, columns: int = 40, low: int = 0, high: int = 4095) -> np.ndarray:
    """A picture with every grey, and a bright square at the upper left by which its orientation is known."""
    picture = np.linspace(low, high, rows * columns).reshape(rows, columns)
    picture[4:10, 4:10] = high
    return picture


def make_dataset(pixels: np.ndarray | None = None, **elements: Any) -> Dataset:
    """A 12-bit CR of the chest; `elements` replace elements by keyword, None removes one."""
    pixels = ramp().astype(np.uint16) if pixels is None else pixels
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    values: dict[str, Any] = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "PatientID": "P1",
        "PatientName": "CANARY^NAME",
        "Modality": "CR",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8 * pixels.dtype.itemsize,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "WindowCenter": 2048,
        "WindowWidth": 4096,
        "PixelData": pixels.tobytes(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong here is wrong on purpose
        for keyword, value in (values | elements).items():
            if value is not None:
                setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "1.2.3")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2.3")
    return dataset


def write_dataset(path: Path, dataset: Dataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(name="ramp")
def _ramp() -> Callable[..., np.ndarray]:
    return ramp


@pytest.fixture(name="make_dataset")
def _make_dataset() -> Callable[..., Dataset]:
    return make_dataset


@pytest.fixture(name="write_dataset")
def _write_dataset() -> Callable[[Path, Dataset], Path]:
    return write_dataset


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[..., Path]:
    """Write `make_dataset(...)` to a file of `tmp_path` and give its path."""

    def make(pixels: np.ndarray | None = None, *, name: str = "image.dcm", **elements: Any) -> Path:
        return write_dataset(tmp_path / name, make_dataset(pixels, **elements))

    return make


@pytest.fixture
def copy_with(tmp_path: Path) -> Callable[..., Path]:
    """A copy of a real file in `tmp_path` with other values of some elements; pixel data are not touched."""

    def copy(source: Path, **elements: Any) -> Path:
        dataset = pydicom.dcmread(source)
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        target = tmp_path / f"copy-{source.name}"
        dataset.save_as(target)
        return target

    return copy


REPORT = """                                 FINAL REPORT
 INDICATION:  Study {study}.

 FINDINGS:
 Lungs of {study} are
 clear.

 IMPRESSION:
 Normal {study}.
"""


@pytest.fixture
def make_mimic(tmp_path: Path) -> Callable[..., Path]:
    """A small MIMIC-CXR tree: patients of two studies each, with a PA and a lateral image per study."""

    def make(patients: int = 6, *, tables: bool = True, name: str = "mimic") -> Path:
        root = tmp_path / name
        split_rows, metadata_rows = (
            ["dicom_id,study_id,subject_id,split"],
            ["dicom_id,subject_id,study_id,ViewPosition"],
        )
        for patient in range(10000001, 10000001 + patients):
            split = ("train", "train", "validate", "test")[patient % 4]
            for study in (50000000 + 2 * patient % 1000, 50000001 + 2 * patient % 1000):
                folder = root / f"files/p{str(patient)[:2]}/p{patient}"
                for view in ("PA", "LATERAL"):
                    image = f"{study}-{view.lower()}"
                    picture = np.roll(ramp(), study % 40, axis=1).astype(np.uint16)
                    dataset = make_dataset(picture, ViewPosition=view, PatientID=str(patient))
                    write_dataset(folder / f"s{study}" / f"{image}.dcm", dataset)
                    split_rows.append(f"{image},{study},{patient},{split}")
                    metadata_rows.append(f"{image},{patient},{study},{view}")
                (folder / f"s{study}.txt").write_text(REPORT.format(study=study))
        if tables:
            with gzip.open(root / "mimic-cxr-2.0.0-split.csv.gz", "wt") as file:
                file.write("\n".join(split_rows) + "\n")
            (root / "mimic-cxr-2.0.0-metadata.csv").write_text("\n".join(metadata_rows) + "\n")
        return root

    return make
