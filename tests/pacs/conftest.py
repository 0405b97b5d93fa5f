"""Phantom studies as an archive holds them, with series that are no radiographs of a chest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from pacs.servers import Orthanc, orthanc
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from cxrreport import runs
from cxrreport.dataset import Manifest
from cxrreport.inference.shards import row_to_json
from cxrreport.records import Prediction
from cxrreport.settings import ExportSettings, IngestSettings, TrackingSettings

OFF = TrackingSettings(enabled=False)
NEEDED = ("pynetdicom", "dicomweb_client", "highdicom", "fhir")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=f"{', '.join(missing)} (extra pacs) is not installed"))


def write_radiograph(
    path: Path, number: int, *, study: str | None = None, patient: str | None = None, **tags: object
) -> Dataset:
    """A radiograph of 64 x 64 pixels of noise: quick, and enough for every step but a real report."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["instance", str(number), str(path)])
    dataset.StudyInstanceUID = study or generate_uid(entropy_srcs=["study", str(number)])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(dataset.StudyInstanceUID)])
    dataset.PatientID, dataset.PatientName = patient or f"PAT{number}", f"Quux^Müller{number}"
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientBirthDate, dataset.PatientSex = "19500101", "F"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "20240229", "101112", f"ACC{number}"
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber, dataset.ReferringPhysicianName = "1", 1, 1, ""
    dataset.StudyDescription, dataset.SeriesDescription = "XR CHEST", "PA"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.BurnedInAnnotation = "NO"
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.Rows = dataset.Columns = 64
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    seed = int.from_bytes(str(dataset.SOPInstanceUID).encode()[-8:], "little")
    dataset.PixelData = np.random.default_rng(seed).integers(0, 4096, (64, 64), dtype=np.uint16).tobytes()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, dataset, enforce_file_format=True)
    return dataset


def write_fixed_reports(data: Path, predictions: Path) -> None:
    """One fixed text for each study of an ingest folder, as `generate` writes them; no model is run."""
    rows = [
        Prediction(
            study_id=study.study_id,
            patient_id=study.patient_id,
            image_ids=study.image_ids,
            text="FINDINGS: The lungs are clear. IMPRESSION: Nothing acute.",
            findings=f"The lungs of image {study.image_ids[0][-4:]} are clear.",
            impression="Nothing acute.",
            mean_logprob=-0.1,
            min_logprob=-0.4,
            tokens=9,
            finished=True,
        )
        for study in Manifest.open(data).studies()
    ]
    predictions.mkdir()
    (predictions / "predictions.jsonl").write_text("".join(f"{row_to_json(row)}\n" for row in rows))
    facts = {
        "verb": "generate",
        "settings": {"input": str(data)},
        "finished": True,
        "baseline": "none",
        "summary": {"predictions": len(rows)},
        "inputs": {"base": "b" * 64, "adapter": None},
        "checkpoint": {"name": "fixed"},
    }
    (predictions / "generate.json").write_text(json.dumps(facts))


def export_fixed(folder: Path, work: Path, formats: tuple[str, ...] = ("sr",)) -> Path:
    """Documents for the studies in a folder, with one fixed text each."""
    data, predictions = work / "data", work / "predictions"
    runs.ingest(IngestSettings(input=folder, output=data, layout="folder", require_report=False, tracking=OFF))
    write_fixed_reports(data, predictions)
    given = {"predictions": predictions, "output": work / "documents", "formats": formats, "tracking": OFF}
    runs.export(ExportSettings.model_validate(given))
    return work / "documents"


@dataclass(frozen=True)
class Studies:
    """Files of studies.

    Args:
        chest: Study Instance UIDs with a radiograph of a chest, which the archive gets.
        files: all files.
        wanted: SOP Instance UIDs of the radiographs of chests.
    """

    folder: Path
    chest: tuple[str, ...]
    files: tuple[Path, ...]
    wanted: frozenset[str]


@cache
def _headers(folder: Path) -> dict[Path, Dataset]:
    return {path: dcmread(path, stop_before_pixels=True) for path in sorted(folder.rglob("*.dcm"))}


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    """40 studies of drawn phantoms, two of them with a CT series, one with a hand, and a study of a hand alone."""
    from cxrreport.demo.phantoms.dicom import to_dicom
    from cxrreport.demo.phantoms.studies import plan_studies

    folder = tmp_path_factory.mktemp("phantoms")
    plans = plan_studies(60, 3, smallest=96, full_size=0)[:40]
    chest: list[str] = []
    wanted = set()
    for number, plan in enumerate(plans):
        for lateral in (False, True)[: 1 + plan.lateral]:
            dataset = to_dicom(plan, lateral)
            dataset.AccessionNumber, dataset.StudyDate = f"ACC{number}", f"202403{number % 28 + 1:02d}"
            path = folder / f"{number}-{int(lateral)}.dcm"
            dataset.save_as(path, enforce_file_format=True)
            wanted.add(str(dataset.SOPInstanceUID))
        chest.append(str(dataset.StudyInstanceUID))
    shared = {"study": chest[0], "patient": plans[0].patient_id}
    write_radiograph(
        folder / "ct-0.dcm", 900, **shared, SOPClassUID=CTImageStorage, Modality="CT", SeriesInstanceUID="1.2.1"
    )  # type: ignore[arg-type]
    write_radiograph(folder / "hand-0.dcm", 901, **shared, BodyPartExamined="HAND", SeriesInstanceUID="1.2.2")  # type: ignore[arg-type]
    write_radiograph(folder / "hand.dcm", 902, BodyPartExamined="HAND")
    return Studies(folder, tuple(chest), tuple(sorted(folder.glob("*.dcm"))), frozenset(wanted))


def radiographs(folder: Path, count: int) -> list[Path]:
    """Radiographs of so many studies."""
    paths = [folder / f"{number}.dcm" for number in range(count)]
    for number, path in enumerate(paths):
        write_radiograph(path, number)
    return paths


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Orthanc]:
    """An empty archive."""
    with orthanc(tmp_path / "orthanc") as server:
        yield server
