"""Reports on their way into the manifest: prepared where their studies are read, and the same however that is split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cxrreport.ingestion import ingest as pipeline
from cxrreport.ingestion import study as reading
from cxrreport.ingestion.ingest import ingest
from cxrreport.ingestion.summary import IngestSummary
from cxrreport.settings import IngestSettings

REPORTS = (
    "FINDINGS: The lungs are clear. Unchanged cardiomegaly.\n\nIMPRESSION: No change.",
    "FINDINGS: Compared with the prior study.",
    "Findings: A ___ effusion has resolved, but a small pneumothorax persists. Impression: Stable heart size.",
    "TECHNIQUE: Portable.",
    "IMPRESSION: Clear lungs.",
    "",
)
STUDIES = 24


@pytest.fixture
def root(make_mimic: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pipeline, "STUDIES_PER_SHARD", 3)
    root = make_mimic(STUDIES // 2)
    for number, path in enumerate(sorted(root.rglob("s*.txt"))):
        path.write_text(REPORTS[number % len(REPORTS)])
    return root


def content(summary: IngestSummary, folder: Path) -> tuple[Any, ...]:
    """All that a run says and writes, but for its folder and its time."""
    facts = replace(summary, folder=Path(), seconds=0.0, resumed=False)
    return facts, pq.read_table(folder / "manifest.parquet").to_pylist(), pq.read_table(folder / "ledger.parquet")


@pytest.mark.parametrize("changes", [{}, {"priors": "all", "placeholders": "remove"}, {"require_report": False}])
def test_manifests_are_equal_for_every_number_of_workers_and_jobs(
    root: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    def run(name: str, **how: Any) -> IngestSummary:
        return ingest(IngestSettings(input=root, output=tmp_path / name, **changes | how))

    whole = content(run("one"), tmp_path / "one")
    assert whole[0].texts["emptied"] and whole[0].texts["dropped"] and whole[0].kept
    assert content(run("two", workers=2), tmp_path / "two") == whole
    jobs = [run("array", shard=f"{number}/3") for number in (1, 2, 3)]
    assert sum((Counter(job.texts) for job in jobs), Counter()) == Counter(whole[0].texts)
    assert all(Counter(job.texts) < Counter(whole[0].texts) for job in jobs)
    assert content(run("array"), tmp_path / "array") == whole


def test_texts_are_prepared_in_the_workers(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_here(*_: Any) -> None:
        pytest.fail("a text was prepared in the parent")

    monkeypatch.setattr(reading, "prepare_text", not_here)  # in this process only, as the workers are spawned
    assert ingest(IngestSettings(input=root, output=tmp_path / "out", workers=2)).texts["mentioned"]


def test_studies_without_text_are_not_read(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read = reading.read_radiograph
    monkeypatch.setattr(
        reading, "read_radiograph", lambda path, **how: opened.append(path.parent.name) or read(path, **how)
    )
    summary = ingest(IngestSettings(input=root, output=tmp_path / "out", priors="all"))
    assert len(opened) == summary.kept == STUDIES // 2
    rows = pq.read_table(tmp_path / "out" / "ledger.parquet").to_pylist()
    details = Counter(row["detail"] for row in rows if row["reason"] == "empty-sections")
    assert details == {"": 8, "nothing is left without mentions of earlier studies": 4}


def test_images_of_a_study_with_different_reports_in_a_table(
    make_dataset: Callable[..., Any], write_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    """An image whose own report has neither findings nor impression is excluded, and the others keep their study."""
    reports = {"a": "TECHNIQUE: PA.", "b": "FINDINGS: Clear.", "c": "FINDINGS: Clear.", "d": "", "e": "TECHNIQUE: PA."}
    studies = {"a": "1", "b": "1", "c": "2", "d": "3", "e": "3"}
    rows = ["image,image_id,study_id,patient_id,view,report"]
    for name, report in reports.items():
        write_dataset(tmp_path / "in" / f"{name}.dcm", make_dataset())
        rows.append(f"{name}.dcm,{name},{studies[name]},p{studies[name]},PA,{report}")
    (tmp_path / "in" / "table.csv").write_text("\n".join(rows) + "\n")
    settings = IngestSettings(input=tmp_path / "in" / "table.csv", output=tmp_path / "out", layout="table", views="all")
    assert ingest(settings).left_out == {"empty-sections": 3}
    kept = pq.read_table(tmp_path / "out" / "manifest.parquet").to_pylist()
    assert [(row["image_id"], row["findings"]) for row in kept] == [("b", "Clear."), ("c", "Clear.")]
