"""Content of the manifest: digest, duplicates, covariates, and no patient data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from ingest_runs import run, write_table
from PIL import Image
from pydicom.dataset import Dataset

from cxrreport.dataset import Covariates, Manifest, content_digest

Make = Callable[..., Path]


def test_content_digest_ignores_the_order_of_rows(make_mimic: Make, tmp_path: Path) -> None:
    run(make_mimic(2), tmp_path / "out")
    table = pq.read_table(tmp_path / "out/manifest.parquet")
    assert table.schema.metadata[b"cxrreport.schema"] == b"1"
    assert content_digest([], {"resolution": 224}) != content_digest([], {"resolution": 448})
    assert table.column_names == [
        *("image_id", "study_id", "patient_id", "split", "view", "source", "rows", "columns", "notes", "image_sha256"),
        *("indication", "technique", "comparison", "findings", "impression"),
        *("shard", "shard_row"),
    ]


def test_same_reports_across_splits_are_counted(make_mimic: Make, tmp_path: Path) -> None:
    root = make_mimic(4)
    for path in root.rglob("s*.txt"):
        path.write_text("FINDINGS: Clear.\nIMPRESSION: Normal.")
    summary = run(root, tmp_path / "out")
    assert summary.reports_in_several_splits == summary.studies["train"] > 0


def test_nearly_the_same_reports_across_splits_are_counted(make_mimic: Make, tmp_path: Path) -> None:
    root = make_mimic(4)
    words = " ".join(f"word{number}" for number in range(40))
    for number, path in enumerate(sorted(root.rglob("s*.txt"))):
        path.write_text(f"FINDINGS: {words} end{number}.\nIMPRESSION: Normal.")
    summary = run(root, tmp_path / "out")
    assert summary.reports_in_several_splits == 0
    assert summary.near_duplicate_reports == summary.studies["validate"] + summary.studies["test"] > 0


def test_covariates_only_when_asked(make_file: Make, tmp_path: Path) -> None:
    facts = {"PatientSex": "F", "Manufacturer": "FUJIFILM Corporation", "PatientAge": "093Y"}
    make_file(name="in/1.dcm", StudyInstanceUID="1.1", PatientID="A", **facts)
    make_file(
        name="in/2.dcm",
        StudyInstanceUID="1.2",
        PatientID="B",
        PatientBirthDate="19500601",
        StudyDate="20200101",
        ViewPosition="AP",
    )
    plain = run(tmp_path / "in", tmp_path / "plain", require_report=False)
    assert Manifest.open(tmp_path / "plain").covariates == {}
    assert "sex" not in pq.read_schema(tmp_path / "plain/manifest.parquet").names
    asked = run(tmp_path / "in", tmp_path / "asked", require_report=False, covariates=True)
    assert asked.digest != plain.digest
    manifest = Manifest.open(tmp_path / "asked")
    known = {manifest.images[image_id].study_id: facts for image_id, facts in manifest.covariates.items()}
    assert known == {
        "1.1": Covariates(sex="F", age_band="90+", projection="PA", manufacturer="Fujifilm"),
        "1.2": Covariates(age_band="60-69", projection="AP"),
    }
    written = b"".join(path.read_bytes() for path in (tmp_path / "asked").rglob("*") if path.is_file())
    assert b"093Y" not in written and b"19500601" not in written and b"Corporation" not in written


def test_covariates_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (90, 1))).save(tmp_path / "in/b.png")
    row = {
        "image": "b.png",
        "study_id": "s",
        "patient_id": "p",
        "findings": "A.",
        "sex": "male",
        "age": "43",
        "view": "AP",
    }
    write_table(tmp_path / "in/table.csv", [row])
    run(tmp_path / "in/table.csv", tmp_path / "out", covariates=True)
    assert Manifest.open(tmp_path / "out").covariates == {"b": Covariates(sex="M", age_band="40-49", projection="AP")}


def test_outputs_contain_no_patient_data(
    make_dataset: Callable[..., Dataset], write_dataset: Any, tmp_path: Path
) -> None:
    dataset = make_dataset(
        PatientID="P1", AccessionNumber="CANARY1", InstitutionName="CANARY CLINIC", StudyDate="20010203"
    )
    write_dataset(tmp_path / "in/a.dcm", dataset)
    run(tmp_path / "in", tmp_path / "out", require_report=False)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert b"CANARY" not in path.read_bytes() and b"20010203" not in path.read_bytes()
