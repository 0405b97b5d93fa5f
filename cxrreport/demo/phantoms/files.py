"""Phantom studies on disk: valid DICOM files and reports in the layout of MIMIC-CXR.

`write_studies` writes `files/p10/p10000001/s50000001/<dicom_id>.dcm`, `s50000001.txt` beside the study's folder, the
split and metadata tables of MIMIC-CXR 2.0.0, and two files that MIMIC-CXR does not have: `findings.json` (true findings
by study id) and `graphs.jsonl` (entity graph of each report). The same seed gives the same files, byte for byte.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from cxrreport.demo.phantoms.dicom import to_dicom
from cxrreport.demo.phantoms.studies import PhantomStudy, image_id, plan_studies, view_code
from cxrreport.records import Progress, View
from cxrreport.storage.atomic_files import atomic_path, write_json

TRUTH = "findings.json"
GRAPHS = "graphs.jsonl"


def write_studies(
    folder: Path, *, patients: int, seed: int, smallest: int, full_size: int, workers: int, progress: Progress
) -> list[PhantomStudy]:
    """Write the data set that the module's docstring describes. Images and reports that exist already are kept.

    Raises:
        OutputError: the disk is full.
    """
    studies = plan_studies(patients, seed, smallest=smallest, full_size=full_size)
    write_planned(folder, studies, workers=workers, progress=progress)
    return studies


def write_planned(folder: Path, studies: Sequence[PhantomStudy], *, workers: int, progress: Progress) -> None:
    """`write_studies` for studies that are planned already, for example by `plan_pairs`."""
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
        [(image_id(s, lat), s.study_id, s.patient_id, s.split.value) for s, lat in images],
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
                *(image_id(s, lat), s.patient_id, s.study_id, "CHEST (PA AND LAT)", view_code(s, lat), s.rows),
                *(s.columns, s.date, f"{s.time}.000", "CHEST (PA AND LAT)"),
                *("lateral" if lat else {View.PA: "postero-anterior"}.get(s.view, "antero-posterior"), "Erect"),
            )
            for s, lat in images
        ],
    )
    write_json(folder / TRUTH, {s.study_id: [list(f.key) for f in s.findings] for s in studies})
    with atomic_path(folder / GRAPHS) as temporary, temporary.open("w", encoding="utf-8") as file:
        for study in studies:
            file.write(json.dumps({"study_id": study.study_id} | asdict(study.written.graph)) + "\n")


def read_truth(folder: Path) -> dict[str, frozenset[tuple[str, str, str]]]:
    """Read the true findings of every study, as `PhantomFinding.key`."""
    known = json.loads((folder / TRUTH).read_text(encoding="utf-8"))
    return {study: frozenset(tuple(key) for key in keys) for study, keys in known.items()}


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
        path = patient / f"s{study.study_id}" / f"{image_id(study, lateral)}.dcm"
        if not path.exists():
            with atomic_path(path) as temporary:
                to_dicom(study, lateral).save_as(temporary, enforce_file_format=True)
    if not text.exists():
        with atomic_path(text) as temporary:
            temporary.write_text(
                " " * 33 + "FINAL REPORT\n"
                f" EXAMINATION:  CHEST RADIOGRAPH\n \n INDICATION:  {report.indication}\n \n"
                f" TECHNIQUE:  {report.technique}\n \n COMPARISON:  {report.comparison}\n \n"
                f" FINDINGS: \n \n {report.findings}\n \n IMPRESSION: \n \n {report.impression}\n",
                encoding="utf-8",
            )
