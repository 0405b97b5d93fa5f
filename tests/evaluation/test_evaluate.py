from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrreport.demo.phantoms.findings import sample_findings
from cxrreport.demo.phantoms.grammar import write_report
from cxrreport.errors import InputError, OutputError, ScoreError, SettingsError, WeightsError
from cxrreport.evaluation.conditions import of_number
from cxrreport.evaluation.evaluate import Evaluation, evaluate
from cxrreport.evaluation.metrics import Metric, Pairs, finding_scorer, metric
from cxrreport.evaluation.results import plain
from cxrreport.evaluation.statistics import mean
from cxrreport.records import differing
from cxrreport.review import read_evaluation
from cxrreport.settings import EvaluateSettings

STUDIES = 24
ERRORS = (
    *("hallucinated_findings", "omitted_findings", "contradictions", "hallucinated_priors"),
    *("actionable_errors", "urgent_errors", "minor_errors"),
)


@pytest.fixture(scope="module")
def reports() -> dict[str, dict[str, Any]]:
    """A manifest's rows by study: twelve patients with two studies each, and a training split."""
    rng = np.random.default_rng(0)
    rows = {}
    for number in range(STUDIES + 8):
        report = write_report(() if number >= STUDIES else sample_findings(rng, normal=0.2), rng).report
        rows[f"s{number:02}"] = {
            "study_id": f"s{number:02}",
            "patient_id": f"p{number // 2:02}",
            "split": "test" if number < STUDIES else "train",
            "findings": report.findings,
            "impression": report.impression,
        }
    return rows


@pytest.fixture
def data(tmp_path: Path, reports: dict[str, dict[str, Any]]) -> Path:
    """An ingest folder; two images for each study, hence two rows."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [row | {"image_id": f"{row['study_id']}-{n}"} for row in reports.values() for n in range(2)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "manifest.parquet")
    return folder


def predict(folder: Path, texts: Mapping[str, str | None]) -> Path:
    folder.mkdir()
    rows = [{"study_id": study, "text": text} for study, text in texts.items()]
    schema = pa.schema([("study_id", pa.string()), ("text", pa.string())])
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "predictions.parquet")
    return folder


def perfect(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    return {
        study: f"FINDINGS: {row['findings']} IMPRESSION: {row['impression']}"
        for study, row in reports.items()
        if row["split"] == "test"
    }


def turned(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    texts = perfect(reports)
    return dict(zip(texts, [*list(texts.values())[3:], *list(texts.values())[:3]], strict=True))


def run(tmp_path: Path, data: Path, predictions: Path, **given: Any) -> Evaluation:
    settings = {"output": tmp_path / "scores", "radgraph": "tiny", "bootstrap_samples": 200} | given
    extra = settings.pop("extra_metrics", ())
    progress = settings.pop("progress", None)
    return evaluate(
        EvaluateSettings(predictions=predictions, references=data, **settings), extra_metrics=extra, progress=progress
    )


def test_a_perfect_system_and_its_baselines(tmp_path: Path, data: Path, reports: dict[str, dict[str, Any]]) -> None:
    baselines = {"shuffled": predict(tmp_path / "shuffled", turned(reports))}
    steps: list[tuple[int, int, str]] = []
    found = run(
        tmp_path,
        data,
        predict(tmp_path / "p", perfect(reports)),
        baselines=baselines,
        progress=lambda *step: steps.append(step),
    )
    assert list(found.systems) == ["model", "shuffled", "most_frequent"]
    assert list(found.differences) == ["shuffled", "most_frequent"]
    gap = found.systems["model"]["image_reliance_gap"]
    assert gap == found.differences["shuffled"]["radgraph_partial"]
    assert found.conditions["metrics"]["image_reliance_gap"]["level"] == "partial"
    for number, one in found.systems["model"].items():
        if number in ("change_f1", "hallucinated_change"):
            assert math.isnan(one.value)  # no phantom has an earlier study, and a table does not say what was shown
        elif number not in ("image_reliance_gap", "mentions_of_priors"):
            right = 0 if number in ERRORS else 10 if number == "cider" else 1
            assert (one.value, one.low, one.high) == pytest.approx((right, right, right)), number
    for name, differences in found.differences.items():
        for number, difference in differences.items():
            baseline = found.systems[name][number]
            if number in (*ERRORS, "mentions_of_priors", "hallucinated_change") or math.isnan(baseline.low):
                continue  # not a share, not known for the model, or of findings that no baseline names
            assert baseline.low <= baseline.value <= baseline.high
            assert difference.value == pytest.approx((10 if number == "cider" else 1) - baseline.value)
            assert 0 <= difference.low <= difference.value <= difference.high
    assert found.differences["shuffled"]["radgraph_partial"].low > 0.1
    assert found.counts["scored"] == STUDIES and found.counts["patients"] == STUDIES // 2
    assert found.counts["excluded"] == 0 and found.counts["other_splits"] == 8
    assert steps[-1][0] == steps[-1][1] and steps[-1][2] == "RadGraph"


def test_files_agree_and_the_review_page_reads_them(
    tmp_path: Path, data: Path, reports: dict[str, dict[str, Any]]
) -> None:
    found = run(tmp_path, data, predict(tmp_path / "p", turned(reports)))
    folder = tmp_path / "scores"
    scores = json.loads((folder / "scores.json").read_text())
    parts = {"conditions", "systems", "differences", "counts", "changes", "findings", "diversity", "subgroups"}
    assert set(scores) == parts | {"not_computed"} and scores["not_computed"].keys() == {"hallucinated_change"}
    assert {"RadGraph", "radgraph_partial", "rouge_l"} < found.seconds.keys()
    assert scores["conditions"] == found.conditions and scores["counts"] == found.counts
    studies = pq.read_table(folder / "studies.parquet").to_pylist()
    assert len(studies) == 2 * STUDIES and studies[0]["system"] == "model"
    for system, metrics in found.systems.items():
        rows = [row for row in studies if row["system"] == system]
        for number in ("radgraph_simple", "radgraph_partial_recall", "rouge_l"):
            assert scores["systems"][system][number]["value"] == metrics[number].value
            assert np.mean([row[number] for row in rows]) == pytest.approx(metrics[number].value)
    row = next(row for row in studies if row["study_id"] == "s05")
    assert row["reference"] == f"{reports['s05']['findings']} {reports['s05']['impression']}"
    assert row["patient_id"] == "p02" and not row["candidate"].startswith("FINDINGS")
    entities = [json.loads(line) for line in (folder / "entities.jsonl").read_text().split("\n") if line]
    assert [one["study_id"] for one in entities] == sorted(one["study_id"] for one in entities)
    statuses = {e["status"] for one in entities for e in one["candidate"]["entities"]}
    assert statuses == {"matched", "hallucinated"}
    for one in entities:
        for side in ("candidate", "reference"):
            for entity in one[side]["entities"]:
                assert " ".join(one[side]["tokens"][entity["start"] : entity["end"] + 1]) == entity["tokens"]
    page = read_evaluation(folder)
    assert page.synthetic and page.system == "model" and len(page.studies) == STUDIES
    assert json.loads((folder / "evaluate.json").read_text())["finished"]


def test_conditions(tmp_path: Path, data: Path, reports: dict[str, dict[str, Any]]) -> None:
    predictions = predict(tmp_path / "p", perfect(reports))
    found = run(tmp_path, data, predictions, section="findings", lower_case=False).conditions
    assert found["synthetic"] is True and found["section"] == "findings" and found["splits"] == ["test"]
    assert found["inputs"] == {"model": "not declared"}
    partial = of_number(found, "radgraph_partial_recall", "model")
    assert partial["model"] == "radgraph-xl" and partial["level"] == "partial" and len(partial["weights_sha256"]) == 64
    assert partial["package"] == "radgraph 0.1.18" and "as written" in partial["case"] and partial["synthetic"]
    assert of_number(found, "radgraph_rexrank", "model")["level"] != "partial"
    assert "tok:13a" in of_number(found, "bleu4", "model")["bleu"]
    assert "tok:none" in of_number(found, "bleu1_radeval", "model")["bleu"]
    assert found["intervals"]["samples"] == 200 and "patients" in found["intervals"]["method"]
    fewer = [row if row["study_id"] != "s03" else row | {"findings": "", "impression": ""} for row in reports.values()]
    pq.write_table(pa.Table.from_pylist(fewer), data / "manifest.parquet")
    other = run(tmp_path, data, predictions, output=tmp_path / "other").conditions
    differing_names = differing(*(of_number(one, "radgraph_simple", "model") for one in (found, other)))
    assert list(differing_names) == ["case", "section", "cohort", "references"]
    assert "lower-cased" in differing_names["case"][1]
    with pytest.raises(ScoreError, match="'spice' is not among the numbers"):
        of_number(found, "spice", "model")


def test_only_references_exclude_studies(tmp_path: Path, data: Path, reports: dict[str, dict[str, Any]]) -> None:
    rows = [dict(row) for row in reports.values()]
    rows[0] |= {"findings": "", "impression": " "}
    rows[1]["findings"] = "effusion " * 1001
    pq.write_table(pa.Table.from_pylist(rows), data / "manifest.parquet")
    ours = perfect(reports)
    del ours["s02"]
    ours |= {"s03": None, "s04": "", "s05": "no " * 1001, "x1": "stranger", "s06": "effusion <2 cm & > 1 cm"}
    baseline = perfect(reports)
    del baseline["s07"]
    found = run(
        tmp_path, data, predict(tmp_path / "p", ours), baselines={"blank": predict(tmp_path / "blank", baseline)}
    )
    counts = found.counts
    assert counts["excluded_by_reason"] == {"empty-reference": 1, "too-long": 1}
    assert counts["failed_predictions"] == {
        "model": {"no-prediction": 1, "missing-text": 1, "too-long": 1},
        "blank": {"no-prediction": 1},
    }
    assert counts["scored"] + counts["excluded"] + counts["other_splits"] == counts["references"] == len(rows)
    assert counts["scored"] == STUDIES - 2
    assert counts["predictions_without_reference"] == {"model": 1, "blank": 0}
    assert counts["empty_predictions"]["model"] == 1 and counts["texts_without_headers"]["model"] == 3
    listed = pq.read_table(tmp_path / "scores" / "excluded.parquet").to_pylist()
    assert {row["study_id"]: (row["system"], row["reason"], row["effect"]) for row in listed} == {
        "x1": ("model", "no-reference", "not used"),
        "s00": ("reference", "empty-reference", "study excluded"),
        "s01": ("reference", "too-long", "study excluded"),
        "s02": ("model", "no-prediction", "scored as empty"),
        "s03": ("model", "missing-text", "scored as empty"),
        "s05": ("model", "too-long", "cut"),
        "s07": ("blank", "no-prediction", "scored as empty"),
    }
    studies = pq.read_table(tmp_path / "scores" / "studies.parquet").to_pylist()
    by_study = {row["study_id"]: row for row in studies if row["system"] == "model"}
    for study in ("s02", "s03", "s04"):
        row = by_study[study]
        assert row["candidate"] == "" and row["radgraph_simple"] == row["bleu4"] == row["rouge_l"] == 0
    assert by_study["s05"]["candidate"] == " ".join(["no"] * 800)
    rule = found.conditions["candidates"]
    assert "empty report" in rule and "800 tokens" in rule
    assert of_number(found.conditions, "bleu4", "model")["candidates"] == rule


@pytest.mark.parametrize("failure", [None, "", "effusion " * 801, "absent"])
def test_no_system_gains_when_one_fails(
    tmp_path: Path,
    data: Path,
    reports: dict[str, dict[str, Any]],
    failure: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def scored(name: str, main: Mapping[str, str | None], baseline: Mapping[str, str | None]) -> Evaluation:
        predictions = predict(tmp_path / name, main)
        baselines = {"other": predict(tmp_path / f"{name}-other", baseline)}
        return run(tmp_path, data, predictions, baselines=baselines, output=tmp_path / f"{name}-scores")

    whole = {study: f"{text} No effusion." for study, text in perfect(reports).items()}
    half = list(whole)[::2]
    failing = {study: failure if study in half else text for study, text in whole.items()}
    if failure == "absent":
        failing = {study: text for study, text in whole.items() if study not in half}
    before = scored("before", whole, turned(reports))
    assert not caplog.records
    after = scored("after", failing, turned(reports))
    assert caplog.records or failure == ""
    swapped = scored("swapped", turned(reports), failing)
    assert before.conditions["cohort"] == after.conditions["cohort"] == swapped.conditions["cohort"]
    assert plain(after.systems["other"]) == plain(before.systems["other"])
    assert swapped.systems["model"]["bleu4"] == before.systems["other"]["bleu4"]
    for number in ("radgraph_partial", "radgraph_simple", "bleu4", "rouge_l", "cider", "findings_f1"):
        assert after.systems["model"][number].value < before.systems["model"][number].value, number
        assert swapped.systems["other"][number] == after.systems["model"][number]


def test_extra_metrics_of_both_kinds(tmp_path: Path, data: Path, reports: dict[str, dict[str, Any]]) -> None:
    def read(text: str) -> set[str]:
        return {word for word in ("effusion", "pneumothorax") if f"no {word}" not in text.lower() and word in text}

    @metric("length", conditions={"unit": "characters"})
    def length(pairs: Pairs) -> dict[str, float]:
        texts = pairs.references
        return {study: len(pairs.candidates[study]) / len(texts[study]) for study in reversed(texts)}

    found = run(
        tmp_path,
        data,
        predict(tmp_path / "p", perfect(reports)),
        metrics=("bleu",),
        extra_metrics=[metric("finding_f1")(finding_scorer(read)), length],
    )
    assert found.systems["model"]["finding_f1"].value == 1 > found.systems["most_frequent"]["finding_f1"].value
    assert found.systems["model"]["length"].value == 1
    assert found.conditions["metrics"]["length"] == {"numbers": ["length"], "synthetic": False, "unit": "characters"}
    assert "finding_f1" in pq.read_table(tmp_path / "scores" / "studies.parquet").column_names


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (metric("rouge_l")(lambda pairs: dict.fromkeys(pairs.references, 0.0)), "'rouge_l': the name is taken"),
        (metric("study_id")(lambda pairs: dict.fromkeys(pairs.references, 0.0)), "study_id is taken"),
        (metric("mine")(lambda pairs: {"s00": 1.0}), "'mine': no candidate for studies s01"),
        (metric("mine")(lambda pairs: mean([1.0, 0.0, 0.0])), "'mine': 3 rows for 24 studies"),
        (metric("mine")(lambda pairs: {"bleu4": mean([0.0] * 24)}), "'mine': the name bleu4 is taken"),
    ],
)
def test_extra_metrics_that_do_not_fit(
    tmp_path: Path, data: Path, reports: dict[str, dict[str, Any]], one: Metric, message: str
) -> None:
    with pytest.raises(ScoreError, match=message):
        run(tmp_path, data, predict(tmp_path / "p", perfect(reports)), metrics=("bleu", "rouge_l"), extra_metrics=[one])


def test_one_patient_and_no_training_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "r.csv").write_text("study_id,patient_id,findings\n1,1,No pneumothorax.\n2,1,Clear lungs.\n")
    (tmp_path / "p.csv").write_text("study_id,text\n1,No pneumothorax.\n2,Nothing.\n")
    with caplog.at_level(logging.WARNING):
        found = run(tmp_path, tmp_path / "r.csv", tmp_path / "p.csv", section="findings")
    assert list(found.systems) == ["model"] and not found.differences
    assert "no training split" in caplog.text
    one = found.systems["model"]["radgraph_simple"]
    assert one.value == 0.5 and math.isnan(one.low)
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["systems"]["model"]["bleu4"]["low"] is None


def test_the_same_command_again_and_another_one(tmp_path: Path, data: Path, reports: dict[str, dict[str, Any]]) -> None:
    predictions = predict(tmp_path / "p", turned(reports))
    first = run(tmp_path, data, predictions)
    before = {p.name: p.read_bytes() for p in (tmp_path / "scores").iterdir()}
    again = run(tmp_path, data, predictions)
    assert plain(asdict(again) | {"seconds": {}}) == plain(asdict(first) | {"seconds": {}})
    assert {p.name: p.read_bytes() for p in (tmp_path / "scores").iterdir()} == before
    assert (tmp_path / "annotations.sqlite").is_file()
    with pytest.raises(OutputError, match=r"other settings.*section"):
        run(tmp_path, data, predictions, section="findings")


def test_input_that_cannot_be_scored(tmp_path: Path, data: Path, reports: dict[str, dict[str, Any]]) -> None:
    good = predict(tmp_path / "p", perfect(reports))
    with pytest.raises(ScoreError, match=r"no study in common.*x and s00"):
        run(tmp_path, data, predict(tmp_path / "other", {"x": "Clear."}))
    (tmp_path / "empty.csv").write_text("study_id,patient_id,findings\ns00,1,\ns01,2,\n")
    with pytest.raises(ScoreError, match=r"none of 2 studies can be scored \(empty-reference\)"):
        run(tmp_path, tmp_path / "empty.csv", good)
    with pytest.raises(InputError, match="nowhere"):
        run(tmp_path, data, good, baselines={"blank": tmp_path / "nowhere.csv"})
    with pytest.raises(ScoreError, match="most_frequent is reserved"):
        run(tmp_path, data, good, baselines={"most_frequent": good})
    with pytest.raises(SettingsError, match=r"generate_baselines: blank not generated yet; call runs.evaluate"):
        run(tmp_path, data, good, generate_baselines=("blank",))
    with pytest.raises(WeightsError, match=r"radgraph-xl\.tar\.gz"):
        run(tmp_path, data, good, radgraph="radgraph-xl", weights=tmp_path / "weights", metrics=("radgraph",))
    assert not (tmp_path / "scores" / "scores.json").exists()


def test_no_report_text_in_the_log(
    tmp_path: Path, data: Path, reports: dict[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="cxrreport"):
        run(tmp_path, data, predict(tmp_path / "p", perfect(reports)))
    assert "pneumothorax" not in caplog.text.lower()


def test_without_radgraphs_weights_the_other_metrics_are_computed(
    tmp_path: Path, data: Path, reports: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXRREPORT_WEIGHTS", str(tmp_path / "none"))
    predictions = predict(tmp_path / "p", perfect(reports))
    found = run(tmp_path, data, predictions, radgraph="radgraph-xl", metrics=("radgraph", "clinical", "bleu"))
    assert next(iter(found.systems["model"])) == "bleu4" and "change_f1" in found.systems["model"]
    lacking = {"radgraph_partial", "radgraph_simple", "radgraph_complete", "radgraph_rexrank", "clinical", "severity"}
    assert lacking < found.not_computed.keys() and "radgraph-xl.tar.gz" in found.not_computed["clinical"]
    with pytest.raises(WeightsError, match="RadGraph 'radgraph-xl' was not found"):
        run(tmp_path / "again", data, predictions, radgraph="radgraph-xl", metrics=("radgraph",))
