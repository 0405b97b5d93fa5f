from __future__ import annotations

import csv
import gzip
import hashlib
import os
import subprocess
import sys

import numpy as np
import pydicom
import pytest

from cxrreport.demo.phantoms.files import read_truth, write_studies
from cxrreport.demo.phantoms.studies import plan_studies
from cxrreport.ingestion.ingest import ingest
from cxrreport.records import Split
from cxrreport.settings import IngestSettings


def silent(*_):
    pass


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    studies = write_studies(folder, patients=24, seed=5, smallest=64, full_size=0, workers=1, progress=silent)
    return folder, studies


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest(), len(files)


def test_the_same_seed_writes_the_same_bytes(phantoms, tmp_path):
    write_studies(tmp_path, patients=24, seed=5, smallest=64, full_size=0, workers=1, progress=silent)
    assert digest(tmp_path) == digest(phantoms[0])


def test_patients_stay_in_one_split_and_shares_hold():
    studies = plan_studies(400, 1, smallest=64, full_size=2)
    splits = {}
    for study in studies:
        splits.setdefault(study.patient_id, set()).add(study.split)
    assert all(len(of_one) == 1 for of_one in splits.values())
    counts = {split: sum(split in of_one for of_one in splits.values()) for split in Split}
    assert counts == {Split.TEST: 80, Split.VALIDATE: 40, Split.TRAIN: 280}
    assert len(studies) > 1.2 * len(splits)
    assert [min(s.rows, s.columns) > 1500 for s in studies[:3]] == [True, True, False]


def test_files_vary_in_syntax_polarity_and_window(phantoms):
    folder, _ = phantoms
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.rglob("*.dcm")]
    assert {h.PhotometricInterpretation for h in headers} == {"MONOCHROME1", "MONOCHROME2"}
    assert len({str(h.file_meta.TransferSyntaxUID) for h in headers}) >= 3
    assert {h.Modality for h in headers} == {"CR", "DX"}
    assert len({h.BitsStored for h in headers}) >= 3
    assert any("VOILUTSequence" in h for h in headers)
    assert any("WindowCenter" in h for h in headers)


def test_tables_list_every_file(phantoms):
    folder, _ = phantoms
    for table in ("split", "metadata"):
        with gzip.open(folder / f"mimic-cxr-2.0.0-{table}.csv.gz", "rt") as file:
            ids = {row["dicom_id"] for row in csv.DictReader(file)}
        assert ids == {path.stem for path in folder.rglob("*.dcm")}


def test_ingest_reads_every_phantom_with_its_report(phantoms, tmp_path):
    folder, studies = phantoms
    settings = IngestSettings(input=folder, output=tmp_path / "out", layout="mimic-cxr", priors="keep")
    summary = ingest(settings, silent)
    assert summary.kept == len(studies)
    assert set(summary.left_out) <= {"not-frontal"}
    from cxrreport.dataset import Manifest

    manifest = Manifest.open(tmp_path / "out")
    reports = {study.study_id: study.written.report for study in studies}
    for study in manifest.studies():
        assert study.report.findings == reports[study.study_id].findings
        assert study.report.impression == reports[study.study_id].impression
    pictures = np.stack([manifest.image(study.image_ids[0]) for study in manifest.studies()])
    # Whatever the polarity, window and syntax of the file: outside the body is dark, the mediastinum is bright.
    assert (pictures[:, 2:8, 2:8].mean((1, 2)) < 60).all()
    assert (pictures[:, 100:140, 108:116].mean((1, 2)) > 120).all()


def test_true_findings_are_keyed_by_study(phantoms):
    folder, studies = phantoms
    truth = read_truth(folder)
    assert truth.keys() == {study.study_id for study in studies}
    assert truth[studies[0].study_id] == {f.key for f in studies[0].findings}


def test_the_same_seed_plans_the_same_in_another_process():
    """Hashes of strings differ between processes, and with them the order of sets."""
    code = (
        "from cxrreport.demo.phantoms.studies import plan_studies; import hashlib; "
        "print(hashlib.sha256(repr(plan_studies(40, 3, smallest=64, full_size=0)).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(digests) == 1
