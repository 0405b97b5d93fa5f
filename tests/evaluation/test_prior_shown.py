"""Evaluation of systems that were shown prior studies: references, what is known of the inputs, comparability."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrreport.evaluation.clinical import CHANGES
from cxrreport.evaluation.conditions import of_number
from cxrreport.evaluation.evaluate import Evaluation, evaluate
from cxrreport.evaluation.inputs.tables import read_predictions
from cxrreport.records import differing
from cxrreport.settings import EvaluateSettings

WITH = "The effusion has increased."
WITHOUT = "Pleural effusion."


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An ingest folder whose reports were edited: `a` and `b` had mentions, `c` had none."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [
        {
            "study_id": study,
            "patient_id": f"p{study}",
            "split": "test",
            "findings": WITHOUT,
            "impression": "Effusion.",
            "prior_study_id": f"{study}0",
            "findings_with_mentions": WITH if study != "c" else None,
            "impression_with_mentions": None,
        }
        for study in "abc"
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "manifest.parquet")
    return folder


def predicted(path: Path, priors: dict[str, str] | None) -> Path:
    rows = [
        {"study_id": study, "findings": WITH, "impression": "Effusion."}
        | ({} if priors is None else {"prior_study_id": priors[study]})
        for study in "abc"
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(data: Path, predictions: Path, **baselines: Path) -> Evaluation:
    settings = EvaluateSettings(
        predictions=predictions,
        references=data,
        output=predictions.with_suffix(""),
        baselines=baselines,
        metrics=("bleu",),
        bootstrap_samples=20,
    )
    return evaluate(settings, extra_metrics=[CHANGES])


def test_references_keep_their_mentions_exactly_where_the_prior_was_shown(tmp_path: Path, data: Path) -> None:
    shown = predicted(tmp_path / "shown.jsonl", {"a": "a0", "b": "", "c": "c0"})
    hidden = predicted(tmp_path / "hidden.jsonl", dict.fromkeys("abc", ""))
    found = run(data, shown, no_prior=hidden)
    studies = pq.read_table(found.output / "studies.parquet").to_pylist()
    references = {(row["system"], row["study_id"]): row["reference"] for row in studies}
    for system in ("model", "no_prior"):  # all systems are scored against the same references
        assert references[system, "a"] == f"{WITH} Effusion."
        assert references[system, "b"] == references[system, "c"] == f"{WITHOUT} Effusion."
    assert found.conditions["mentions"] == "kept in 1 studies whose prior study was shown"
    assert found.conditions["prior_shown"] == {"model": "in 2 of 3 studies", "no_prior": "in 0 of 3 studies"}
    # Agreed in a; stated in b and c, where the reference states none. A prior was not shown for b.
    assert found.systems["model"]["change_f1"].value == pytest.approx(2 * 1 / (2 * 1 + 2))
    assert found.systems["model"]["hallucinated_change"].value == 1.0
    assert found.analyses["changes"]["model"]["Pleural Effusion"]["agreed"] == 1


def test_scores_against_references_with_and_without_mentions_are_not_compared(tmp_path: Path, data: Path) -> None:
    shown = run(data, predicted(tmp_path / "shown.jsonl", {"a": "a0", "b": "b0", "c": ""}))
    hidden = run(data, predicted(tmp_path / "hidden.jsonl", dict.fromkeys("abc", "")))
    sides = [of_number(one.conditions, "change_f1", "model") for one in (shown, hidden)]
    assert differing(*sides).keys() == {"mentions"}
    assert differing(*sides)["mentions"][1] is None  # as in evaluations of earlier versions, and in papers


def test_of_other_tools_it_is_not_known_what_was_shown(tmp_path: Path, data: Path) -> None:
    found = run(data, predicted(tmp_path / "theirs.jsonl", None))
    assert found.conditions["prior_shown"]["model"] == "not known"
    assert math.isnan(found.systems["model"]["hallucinated_change"].value)
    assert "theirs.jsonl has no column prior_study_id" in found.not_computed["hallucinated_change"]
    assert found.systems["model"]["change_f1"].value == 0.0


@pytest.mark.parametrize(
    ("prompt", "baseline", "inputs"),
    [
        ({}, "none", "1 image of 224 pixels and indication"),
        ({"views": "frontal+lateral"}, "none", "1 image of 224 pixels and lateral and indication"),
        ({"prior": "report+image"}, "none", "1 image of 224 pixels and prior study (report+image) and indication"),
        ({"prior": "report"}, "no_prior", "1 image of 224 pixels and indication"),
        (
            {"prior": "report"},
            "shuffled_prior",
            "1 image of 224 pixels and prior study (report, of another patient) and indication",
        ),
        ({"prior": "report"}, "shuffled", "1 image of 224 pixels (shuffled) and prior study (report) and indication"),
    ],
)
def test_inputs_name_the_lateral_and_the_prior(
    tmp_path: Path, prompt: dict[str, str], baseline: str, inputs: str
) -> None:
    rows = pa.Table.from_pylist([{"study_id": "a", "text": "Effusion."}])
    pq.write_table(rows, tmp_path / "predictions.parquet")
    record = {"inputs": {"prompt": {"indication": True} | prompt}, "baseline": baseline}
    (tmp_path / "generate.json").write_text(json.dumps(record | {"checkpoint": {"resolution": 224}}), encoding="utf-8")
    found = read_predictions(tmp_path, "findings")
    assert found.inputs == inputs
    assert found.priors == {}  # earlier versions of `generate` showed no prior study
