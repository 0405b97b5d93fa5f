"""All commands in order: what each hands to the next and what it logs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from mlflow import MlflowClient
from small_pipeline import REPORTS, SECRET, UNTRACKED, Pipeline

from cxrreport import runs
from cxrreport.errors import InputError, MismatchError, OutputError, SettingsError
from cxrreport.settings import (
    EvaluateSettings,
    GenerateSettings,
    ReviewSettings,
    TrackingSettings,
)


def test_ingest_counts_what_it_kept(pipeline: Pipeline) -> None:
    assert pipeline.ingested.facts["read"] == pipeline.ingested.facts["kept"] == 12
    found = pipeline.run(pipeline.ingested)
    assert found.data.metrics["kept"] == 12
    assert found.data.metrics["split/test"] == 4
    assert found.data.params["layout"] == "table"
    assert {"contact_sheet.png", "ingest.json", "settings.json"} <= pipeline.artifacts(pipeline.ingested)


def test_training_logs_its_curve_and_its_adapter(pipeline: Pipeline) -> None:
    client = MlflowClient(pipeline.trained.tracking_uri)
    curve = client.get_metric_history(pipeline.trained.run_id, "loss")
    assert [point.step for point in curve] == [1, 2, 3]
    assert pipeline.run(pipeline.trained).data.metrics["final/samples"] == 6
    kept = pipeline.artifacts(pipeline.trained)
    assert {"loss.png", "log.jsonl", "train.json"} <= kept


def test_the_test_split_gets_reports(pipeline: Pipeline) -> None:
    predictions = pq.read_table(pipeline.folder / "tuned" / "predictions.parquet").to_pylist()
    assert [row["study_id"] for row in predictions] == ["study08", "study09", "study10", "study11"]
    assert pipeline.run(pipeline.generated).data.metrics["predictions"] == 4


def test_scores_are_reported_beside_their_baselines_with_intervals(pipeline: Pipeline) -> None:
    assert {"model", "no_adapter", "most_frequent"} == pipeline.evaluated.result.systems.keys()
    score = pipeline.evaluated.facts["radgraph_partial/most_frequent"]
    assert score["low"] <= score["value"] <= score["high"]
    run = pipeline.run(pipeline.evaluated)
    found = run.data.metrics
    assert found["length"] == 0.5
    assert len([name for name in found if not name.startswith("system/")]) < 25
    # Each baseline is a run below, with the same names.
    client = MlflowClient(pipeline.evaluated.tracking_uri)
    below = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    numbers = {one.data.tags["cxrreport.system"]: one.data.metrics for one in below}
    assert numbers.keys() == {"no_adapter", "most_frequent"}
    assert numbers["most_frequent"]["radgraph_partial"] == pytest.approx(score["value"])
    assert numbers["most_frequent"]["radgraph_partial/low"] == pytest.approx(score["low"])
    # Everything else is in tables.
    folder = pipeline.folder / "mlartifacts" / pipeline.evaluated.run_id / "artifacts"
    rows = json.loads((folder / "all_scores.json").read_text())["data"]
    assert ["radgraph_partial", "most_frequent", *score.values()] in rows
    analyses = dict(json.loads((folder / "analyses.json").read_text())["data"])
    assert analyses["findings/model/Pneumothorax/agreed"] >= 0
    assert analyses["subgroups/reference/abnormal/patients"] >= 1
    shown = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert [one["path"] for one in shown] == ["all_scores.json", "analyses.json", "seconds.json"]
    pictures = {"scores.png", "findings.png", "selective.png"}
    assert pictures | {"conditions.yaml"} <= pipeline.artifacts(pipeline.evaluated)
    assert any("synthetic" in warning for warning in pipeline.evaluated.warnings)
    # Sentences of reports are in a separate file, which is not logged.
    assert json.loads((pipeline.evaluated.output / "sentences.json").read_text())["model"] != []
    assert "sentences" not in json.loads((folder / "scores.json").read_text())["diversity"]["systems"]["model"]
    assert "sentences.json" not in pipeline.artifacts(pipeline.evaluated)


def test_the_page_is_written_and_stays_out_of_the_store(pipeline: Pipeline) -> None:
    assert pipeline.reviewed.result == 4
    assert SECRET in (pipeline.folder / "review.html").read_text(encoding="utf-8")
    assert not any(name.endswith(".html") for name in pipeline.artifacts(pipeline.reviewed))


def test_a_score_leads_back_to_its_data(pipeline: Pipeline) -> None:
    scores, reports, adapter, data = (
        pipeline.run(summary).data.tags
        for summary in (pipeline.evaluated, pipeline.generated, pipeline.trained, pipeline.ingested)
    )
    assert scores["digest.evaluation.predictions"] == reports["digest.output.predictions"]
    assert reports["digest.model.adapter"] == adapter["digest.output.adapter"]
    assert adapter["digest.training.manifest"] == data["digest.output.manifest"]
    assert scores["digest.evaluation.references"] == data["digest.output.manifest"]
    assert scores["cxrreport.predictions_run"] == pipeline.generated.run_id
    assert scores["cxrreport.model_run"] == scores["mlflow.parentRunId"] == pipeline.trained.run_id
    assert reports["cxrreport.model_run"] == pipeline.trained.run_id
    client = MlflowClient(pipeline.evaluated.tracking_uri)
    wanted = f"tags.`digest.output.predictions` = '{scores['digest.evaluation.predictions']}'"
    (made_by,) = client.search_runs([pipeline.run(pipeline.evaluated).info.experiment_id], wanted)
    assert made_by.info.run_id == pipeline.generated.run_id


def test_the_adapter_is_a_model_with_its_scores(pipeline: Pipeline) -> None:
    client = MlflowClient(pipeline.trained.tracking_uri)
    experiment = client.get_experiment(pipeline.run(pipeline.trained).info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert (str(model.status), model.source_run_id, model.params["rank"]) == ("READY", pipeline.trained.run_id, "2")
    assert "adapter_model.safetensors" in {one.path for one in client.list_logged_model_artifacts(model.model_id)}
    by_name = {metric.key: metric for metric in model.metrics or []}
    score = by_name["radgraph_partial"]
    assert score.value == pytest.approx(pipeline.evaluated.facts["radgraph_partial/model"]["value"])
    assert score.run_id == pipeline.evaluated.run_id and score.dataset_name == "references"


def test_one_command_makes_the_baselines_too(pipeline: Pipeline) -> None:
    names = ("shuffled", "blank", "no_adapter", "nearest")
    settings = EvaluateSettings(
        predictions=pipeline.folder / "tuned",
        references=pipeline.folder / "data",
        output=pipeline.folder / "controlled",
        generate_baselines=names,
        metrics=("radgraph",),
        radgraph="tiny",
        bootstrap_samples=50,
    )
    told: list[str] = []
    summary = runs.evaluate(settings, progress=lambda done, total, label: told.append(label))
    assert list(summary.result.systems) == ["model", *names, "most_frequent"]
    assert {f"{name}: studies" for name in names} | {"nearest: training images", "RadGraph"} <= set(told)
    logged = pipeline.run(summary).data
    gap = summary.result.systems["model"]["image_reliance_gap"].value
    assert logged.metrics["image_reliance_gap"] == pytest.approx(gap)
    scores = json.loads((pipeline.folder / "controlled/scores.json").read_text())
    assert scores["systems"]["model"]["image_reliance_gap"]["value"] == gap
    folder = pipeline.folder / "mlartifacts" / summary.run_id / "artifacts"
    conditions = yaml.safe_load((folder / "conditions.yaml").read_text())["metrics"]["image_reliance_gap"]
    assert conditions["difference"] == "radgraph_partial of the model minus that of 'shuffled'"

    def texts(folder: str) -> list[str]:
        return pq.read_table(pipeline.folder / folder / "predictions.parquet").column("text").to_pylist()

    assert texts("tuned-no-adapter") == texts("bare") != texts("tuned")
    training = {f"FINDINGS: {report} IMPRESSION: {report}" for report in REPORTS}
    assert set(texts("tuned-nearest")) <= training
    records = [
        json.loads((pipeline.folder / f"tuned-{name}/generate.json").read_text()) for name in ("blank", "nearest")
    ]
    assert [record["settings"]["max_new_tokens"] for record in records] == [8, 8]
    assert records[0]["inputs"]["adapter"] and records[1]["inputs"]["adapter"] is None
    again = runs.evaluate(settings)
    assert again.run_id == summary.run_id
    assert json.loads((pipeline.folder / "tuned-blank/generate.json").read_text()) == records[0]


def test_baselines_are_generated_from_the_inputs_of_the_predictions_only(pipeline: Pipeline, tmp_path: Path) -> None:
    given = {"references": pipeline.folder / "data", "output": tmp_path / "out", "tracking": UNTRACKED}
    (tmp_path / "table").mkdir()
    shutil.copy(pipeline.folder / "tuned/predictions.parquet", tmp_path / "table/predictions.parquet")
    with pytest.raises(InputError, match=r"generate\.json: cannot be read"):
        runs.evaluate(EvaluateSettings(predictions=tmp_path / "table", generate_baselines=("blank",), **given))
    with pytest.raises(SettingsError, match=r"'no_adapter': checkpoint .* has no adapter"):
        runs.evaluate(
            EvaluateSettings(predictions=pipeline.folder / "bare", generate_baselines=("no_adapter",), **given)
        )
    shutil.copytree(pipeline.folder / "tuned", tmp_path / "tuned")
    record = json.loads((tmp_path / "tuned/generate.json").read_text())
    record["inputs"]["adapter"] = "0" * 64
    (tmp_path / "tuned/generate.json").write_text(json.dumps(record))
    with pytest.raises(MismatchError, match="tuned-blank: adapter changed since"):
        runs.evaluate(EvaluateSettings(predictions=tmp_path / "tuned", generate_baselines=("blank",), **given))


def test_the_store_contains_no_report_and_no_patient(pipeline: Pipeline) -> None:
    database = (pipeline.folder / "mlflow.db").read_bytes()
    for word in (SECRET, "SUBJECT"):
        assert word.encode() not in database
        for path in (pipeline.folder / "mlartifacts").rglob("*"):
            if path.is_file():
                assert word.encode() not in path.read_bytes(), path


def test_reports_are_kept_in_the_store_when_they_are_asked_for(pipeline: Pipeline, tmp_path: Path) -> None:
    there = TrackingSettings(uri=f"sqlite:///{tmp_path / 'mlflow.db'}", log_reports=True)
    page = runs.review(
        ReviewSettings(
            evaluation=pipeline.folder / "scores",
            data=pipeline.folder / "data",
            output=tmp_path / "page.html",
            tracking=there,
        )
    )
    kept = {item.path for item in MlflowClient(page.tracking_uri).list_artifacts(page.run_id)}
    assert "page.html" in kept


def test_repeating_a_command_makes_no_second_run(pipeline: Pipeline) -> None:
    settings = GenerateSettings(
        input=pipeline.folder / "data",
        output=pipeline.folder / "tuned",
        adapter=pipeline.folder / "train" / "adapter",
        max_new_tokens=8,
    )
    again = runs.generate(settings)
    assert again.run_id == pipeline.generated.run_id
    assert again.result.predictions == 4
    with pytest.raises(OutputError, match="max_new_tokens"):
        runs.generate(settings.model_copy(update={"max_new_tokens": 9}))


def test_a_summary_is_json(pipeline: Pipeline) -> None:
    for summary in (pipeline.ingested, pipeline.trained, pipeline.generated, pipeline.evaluated, pipeline.reviewed):
        values = json.loads(json.dumps(summary.as_dict(), allow_nan=False))
        assert values["command"] == summary.command
        assert values["run_id"] == summary.run_id
