"""Reports on their way into the manifest: the same in this process and in worker processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxrreport.ingestion import texts
from cxrreport.ingestion.study_plan import Plan, StudyPlan
from cxrreport.records import Report, Split
from cxrreport.settings import IngestSettings

FINDINGS = (
    "The lungs are clear. Unchanged cardiomegaly.",
    "Compared with the prior study.",
    "A ___ effusion has resolved, but a small pneumothorax persists.",
    "",
)


def _plan() -> Plan:
    studies = [
        StudyPlan(
            study_id=f"s{index}",
            patient_id=f"p{index}",
            split=(Split.TRAIN, Split.TEST)[index % 3 == 2],
            report=Report(findings=FINDINGS[index % 4]),
            candidates=(),
            only_first=False,
        )
        for index in range(24)
    ]
    return Plan(studies=studies, excluded=[], read=24)


def test_worker_processes_edit_reports_as_this_process_does(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = IngestSettings(input=Path(), output=Path("unused"), priors="training", placeholders="remove", workers=2)
    calls: list[int] = []

    def progress(done: int, total: int, label: str) -> None:
        calls.append(done)

    here = texts.prepare_texts(_plan(), settings, None, progress)
    monkeypatch.setattr(texts, "_FEW_REPORTS", 10)
    assert texts.prepare_texts(_plan(), settings, None, progress) == here
    assert calls == [*range(1, 25)] * 2
    plan, counts = here
    assert counts["emptied"] == 4  # of the six with nothing but a comparison, two are in the test split
    assert len(plan.studies) == 20


def test_a_rewriter_stays_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold a model, or a function that cannot be pickled."""
    monkeypatch.setattr(texts, "_FEW_REPORTS", 10)
    settings = IngestSettings(input=Path(), output=Path("unused"), priors="all", workers=2)
    seen: list[str] = []

    def rewriter(text: str) -> str:
        seen.append(text)
        return "Rewritten."

    plan, counts = texts.prepare_texts(_plan(), settings, rewriter, lambda done, total, label: None)
    assert len(seen) == counts["sections"] == 18
    assert {study.report.findings for study in plan.studies} == {"Rewritten.", ""}
