"""The page reads what `evaluate` writes: both ends run, with the project's own small RadGraph."""

from __future__ import annotations

import json
from pathlib import Path

from cxrreport.evaluation.evaluate import MAIN, evaluate
from cxrreport.review import read_evaluation, write_page
from cxrreport.review.evaluation import WORST_BY
from cxrreport.settings import EvaluateSettings

REFERENCES = {
    "s1": "The heart is enlarged. Small left pleural effusion. No pneumothorax.",
    "s2": "The lungs are clear. No pleural effusion.",
    "s3": "The heart is normal in size.",
}
CANDIDATES = {
    "s1": "The heart is normal in size. No pneumothorax.",
    "s2": "The lungs are clear. No pleural effusion.",
    "s3": "",
}


def write_table(path: Path, texts: dict[str, str], **more: str) -> Path:
    rows = [{"study_id": study_id, "findings": text, **more} for study_id, text in texts.items()]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def test_what_evaluate_writes_becomes_a_page(tmp_path: Path, images) -> None:
    settings = EvaluateSettings(
        predictions=write_table(tmp_path / "predictions.jsonl", CANDIDATES),
        references=write_table(tmp_path / "references.jsonl", REFERENCES, patient_id="p"),
        output=tmp_path / "evaluation",
        most_frequent=False,
        radgraph="tiny",
        bootstrap_samples=10,
    )
    found = evaluate(settings)
    evaluated = read_evaluation(settings.output)
    assert next(iter(found.systems[MAIN])) == WORST_BY
    assert evaluated.system == MAIN
    assert evaluated.synthetic
    assert [study.study_id for study in evaluated.studies] == ["s3", "s1", "s2"]
    first, second, best = evaluated.studies
    assert best.score == 1.0
    assert {piece.status for piece in best.reports[0].pieces} <= {"", "matched"}
    for study in evaluated.studies:
        assert "".join(piece.text for piece in study.reports[0].pieces) == CANDIDATES[study.study_id]
        assert "".join(piece.text for piece in study.reports[1].pieces) == REFERENCES[study.study_id]
    assert any(piece.status == "missed" for piece in second.reports[1].pieces)
    assert first.reports[0].pieces == []
    assert write_page(evaluated, images, tmp_path / "review.html") == 3
