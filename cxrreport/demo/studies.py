"""Phantom studies on disk: valid DICOM files and reports in the layout of MIMIC-CXR.

`write_studies` writes `files/p10/p10000001/s50000001/<dicom_id>.dcm`, `s50000001.txt` beside the study's folder, the
split and metadata tables of MIMIC-CXR 2.0.0, and two files that MIMIC-CXR does not have: `findings.json` (true findings
by study id) and `graphs.jsonl` (entity graph of each report). The same seed gives the same files, byte for byte.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)

from cxrreport.demo.findings import Name, PhantomFinding, masked, sample_findings
from cxrreport.demo.grammar import WrittenReport, sample_style, write_report
from cxrreport.demo.phantom import Anatomy, draw, draw_lateral, expose, sample_anatomy
from cxrreport.records import Progress, Split, View
from cxrreport.storage.atomic_files import atomic_path, write_json

TRUTH = "findings.json"
GRAPHS = "graphs.jsonl"
_LATERAL = 0.06
_SHARES = ((Split.TEST, 0.20), (Split.VALIDATE, 0.10))
_SYNTAXES: tuple[tuple[UID, float], ...] = (
    (ExplicitVRLittleEndian, 0.55),
    (ImplicitVRLittleEndian, 0.15),
    (DeflatedExplicitVRLittleEndian, 0.10),
    (RLELossless, 0.10),
    (JPEG2000Lossless, 0.10),
)
# Image sizes of real detectors, rows x columns.
_DETECTORS = ((2544, 3056), (3056, 2544), (2022, 2022), (1760, 1760))


@dataclass(frozen=True, slots=True)
class PhantomStudy:
    """Everything that determines the files of one study."""

    patient_id: str
    study_id: str
    split: Split
    view: View
    anatomy: Anatomy
    findings: tuple[PhantomFinding, ...]
    written: WrittenReport
    rows: int
    columns: int
    date: str
    lateral: bool
    seed: int


def plan_studies(patients: int, seed: int, *, smallest: int, full_size: int) -> list[PhantomStudy]:
    """Sample patients and their studies.

    Args:
        patients: number of patients; 20% of them are for testing and 10% for validation.
        seed: random seed.
        smallest: shortest side of the images in pixels, except for the full-size ones.
        full_size: number of studies with the image size of a real detector.
    """
    rng = np.random.default_rng([seed, 0])
    studies: list[PhantomStudy] = []
    order = rng.permutation(patients)
    bounds = np.cumsum([round(share * patients) for _, share in _SHARES])
    for index in range(patients):
        place = int(np.flatnonzero(order == index)[0])
        split = next((s for (s, _), bound in zip(_SHARES, bounds, strict=True) if place < bound), Split.TRAIN)
        style, anatomy = sample_style(rng), sample_anatomy(rng)
        prior: tuple[PhantomFinding, ...] | None = None
        for visit in range(1 + int(rng.random() < 0.3)):
            findings = masked(_follow(prior, rng) if prior is not None else sample_findings(rng))
            rows, columns = (int(side) for side in rng.integers(smallest, smallest * 5 // 4, 2))
            if len(studies) < full_size:
                rows, columns = _DETECTORS[len(studies) % len(_DETECTORS)]
            studies.append(
                PhantomStudy(
                    patient_id=str(10_000_000 + index),
                    study_id=str(50_000_000 + 1 + len(studies)),
                    split=split,
                    view=View.PA if rng.random() < 0.6 else View.AP,
                    anatomy=anatomy if prior is None else _again(anatomy, rng),
                    findings=findings,
                    written=write_report(findings, rng, style=style, prior=prior),
                    rows=rows,
                    columns=columns,
                    date=f"21{index % 80 + 10}{1 + visit:02d}{1 + index % 28:02d}",
                    lateral=bool(rng.random() < _LATERAL),
                    seed=int(rng.integers(2**31)),
                )
            )
            prior = findings
    return studies


def _follow(prior: tuple[PhantomFinding, ...], rng: np.random.Generator) -> tuple[PhantomFinding, ...]:
    """Sample the findings of a follow-up study: earlier ones persist with probability 0.6 (pacemakers always)."""
    kept = [f for f in prior if f.name is Name.PACEMAKER or rng.random() < 0.6]
    names = {f.name for f in kept}
    return tuple(sorted([*kept, *(f for f in sample_findings(rng, normal=0.6) if f.name not in names)]))


def _again(anatomy: Anatomy, rng: np.random.Generator) -> Anatomy:
    """Return the same patient in a new position."""
    pose = sample_anatomy(rng)
    values = asdict(anatomy) | {name: getattr(pose, name) for name in ("rotation", "scale", "shift_x", "shift_y")}
    return Anatomy(**values)


def write_studies(
    folder: Path, *, patients: int, seed: int, smallest: int, full_size: int, workers: int, progress: Progress
) -> list[PhantomStudy]:
    """Write the data set that the module's docstring describes. Images and reports that exist already are kept.

    Raises:
        OutputError: the disk is full.
    """
    studies = plan_studies(patients, seed, smallest=smallest, full_size=full_size)
    done = 0
    # Spawned, because torch's threads do not survive a fork.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for _ in pool.map(_write_study, [folder] * len(studies), studies, chunksize=8):
            done += 1
            progress(done, len(studies), "phantoms")
    images = [(study, lateral) for study in studies for lateral in ([False, True] if study.lateral else [False])]
    _write_table(
        folder / "mimic-cxr-2.0.0-split.csv.gz",
        ("dicom_id", "study_id", "subject_id", "split"),
        [(_image_id(s, lat), s.study_id, s.patient_id, s.split.value) for s, lat in images],
    )
    _write_table(
        folder / "mimic-cxr-2.0.0-metadata.csv.gz",
        (
            *("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows"),
            *("Columns", "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning"),
            *("ViewCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning"),
        ),
        [
            (
                *(_image_id(s, lat), s.patient_id, s.study_id, "CHEST (PA AND LAT)", _view_code(s, lat), s.rows),
                *(s.columns, s.date, "120000.000", "CHEST (PA AND LAT)"),
                *("lateral" if lat else {View.PA: "postero-anterior"}.get(s.view, "antero-posterior"), "Erect"),
            )
            for s, lat in images
        ],
    )
    write_json(folder / TRUTH, {s.study_id: [list(f.key) for f in s.findings] for s in studies})
    with atomic_path(folder / GRAPHS) as temporary, temporary.open("w", encoding="utf-8") as file:
        for study in studies:
            file.write(json.dumps({"study_id": study.study_id} | asdict(study.written.graph)) + "\n")
    return studies


def example(seed: int = 0) -> bytes:
    """Return an example DICOM file: a phantom of about 100 x 100 pixels."""
    (study, *_) = plan_studies(1, seed, smallest=96, full_size=0)
    content = io.BytesIO()
    _dicom(study, lateral=False).save_as(content, enforce_file_format=True)
    return content.getvalue()


def read_truth(folder: Path) -> dict[str, frozenset[tuple[str, str, str]]]:
    """Read the true findings of every study, as `PhantomFinding.key`."""
    known = json.loads((folder / TRUTH).read_text(encoding="utf-8"))
    return {study: frozenset(tuple(key) for key in keys) for study, keys in known.items()}


def _image_id(study: PhantomStudy, lateral: bool) -> str:
    digest = hashlib.sha256(f"{study.patient_id}/{study.study_id}/{study.seed}/{lateral}".encode()).hexdigest()
    return "-".join(digest[place : place + 8] for place in range(0, 40, 8))


def _view_code(study: PhantomStudy, lateral: bool) -> str:
    return "LATERAL" if lateral else study.view.value


def _write_table(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def _write_study(folder: Path, study: PhantomStudy) -> None:
    patient = folder / "files" / f"p{study.patient_id[:2]}" / f"p{study.patient_id}"
    report = study.written.report
    text = patient / f"s{study.study_id}.txt"
    for lateral in [False, True] if study.lateral else [False]:
        path = patient / f"s{study.study_id}" / f"{_image_id(study, lateral)}.dcm"
        if not path.exists():
            with atomic_path(path) as temporary:
                _dicom(study, lateral).save_as(temporary, enforce_file_format=True)
    if not text.exists():
        with atomic_path(text) as temporary:
            temporary.write_text(
                " " * 33 + "FINAL REPORT\n"
                f" EXAMINATION:  CHEST RADIOGRAPH\n \n INDICATION:  {report.indication}\n \n"
                f" TECHNIQUE:  {report.technique}\n \n COMPARISON:  {report.comparison}\n \n"
                f" FINDINGS: \n \n {report.findings}\n \n IMPRESSION: \n \n {report.impression}\n",
                encoding="utf-8",
            )


def _dicom(study: PhantomStudy, lateral: bool) -> Dataset:
    """Encode the frontal or lateral image of a study as a CR or DX object (PS3.3 A.2, A.26)."""
    rng = np.random.default_rng([study.seed, int(lateral)])
    if lateral:
        grey = draw_lateral(study.anatomy, study.rows, study.columns)
    else:
        grey = draw(study.anatomy, study.findings, study.rows, study.columns, study.seed).grey
    # Noise per pixel grows with resolution, because each pixel receives fewer photons.
    grey = expose(grey, rng, noise=0.012 * min(study.rows, study.columns) / 224)
    digital = bool(rng.random() < 0.5)
    inverted = bool(rng.random() < 0.3)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    _identify(dataset, study, lateral, digital)
    stored = _store(dataset, grey, inverted, rng)
    syntax = list(_SYNTAXES)[int(rng.choice(len(_SYNTAXES), p=[share for _, share in _SYNTAXES]))][0]
    if min(stored.shape) > 1500:
        syntax = ExplicitVRLittleEndian  # the pure-Python encoders take many seconds for a full-size image
    native = syntax if not syntax.is_encapsulated else ExplicitVRLittleEndian
    dataset.file_meta.TransferSyntaxUID = native
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    if syntax.is_encapsulated:
        dataset.compress(syntax, stored, generate_instance_uid=False)
    return dataset


def _identify(dataset: Dataset, study: PhantomStudy, lateral: bool, digital: bool) -> None:
    def uid(*parts: str) -> UID:
        return generate_uid(entropy_srcs=["cxrreport phantom", str(study.seed), *parts])

    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation if digital else ComputedRadiographyImageStorage
    dataset.SOPInstanceUID = uid("image", str(lateral))
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID = uid("study")
    dataset.SeriesInstanceUID = uid("series")
    dataset.Modality = "DX" if digital else "CR"
    dataset.Manufacturer = "cxrreport phantoms"
    dataset.PatientName = f"PHANTOM^{study.patient_id}"
    dataset.PatientID = study.patient_id
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = study.date, "120000", study.study_id
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 2 if lateral else 1
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "LL" if lateral else study.view.value
    dataset.PatientOrientation = ["A", "F"] if lateral else ["L", "F"]
    dataset.BurnedInAnnotation = "NO"
    if digital:
        dataset.ImageLaterality, dataset.PresentationIntentType = "U", "FOR PRESENTATION"
        dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1


def _store(dataset: Dataset, grey: NDArray[np.float32], inverted: bool, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Return the stored values of a grey image, and set the attributes needed to display them (PS3.3 C.7.6.3)."""
    bits = int(rng.choice([10, 12, 14, 15]))
    top = 2**bits - 1
    low, high = int(rng.uniform(0.02, 0.15) * top), int(rng.uniform(0.7, 0.95) * top)
    shown = 1.0 - grey if inverted else grey
    stored = np.rint(low + shown * (high - low)).astype(np.uint16)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, bits, bits - 1, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    if rng.random() < 0.8:
        # C.11.2.1.2.1, LINEAR: grey 0 at c - 0.5 - (w - 1) / 2.
        width = high - low + 1
        dataset.WindowCenter, dataset.WindowWidth = f"{low + 0.5 + (width - 1) / 2:.1f}", str(width)
    else:
        item = Dataset()
        table = np.rint(np.clip((np.arange(low, high + 1) - low) / (high - low), 0, 1) * 65535).astype(np.uint16)
        item.LUTDescriptor = [len(table), low, 16]
        item["LUTDescriptor"].VR = "US"
        item.LUTData = table.tobytes()
        item["LUTData"].VR = "OW"
        dataset.VOILUTSequence = Sequence([item])
    return stored
