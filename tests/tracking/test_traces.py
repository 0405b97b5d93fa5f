"""Traces of reports, readers' verdicts on them, and registration by the paired test, in a real store."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from cxrreport import runs, serving, tracking
from cxrreport.demo.phantoms.dicom import example
from cxrreport.errors import InputError, MismatchError, ScoreError, SettingsError
from cxrreport.settings import (
    EvaluateSettings,
    FeedbackSettings,
    GenerateSettings,
    RegisterSettings,
    TrackingSettings,
    build,
)

TEXTS = ("effusion", "lungs", "heart", "cardiac", "examination", "pneumothorax")


@pytest.fixture(scope="module")
def demo(small_demo) -> Path:
    folder, done, _ = small_demo
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def traced(demo, tmp_path_factory) -> tuple[Path, TrackingSettings]:
    """Reports of three studies with traces, and where these are."""
    folder = tmp_path_factory.mktemp("traced")
    there = TrackingSettings(uri=f"sqlite:///{folder / 'mlflow.db'}", traces=True)
    runs.generate(
        GenerateSettings(
            input=demo / "ingest",
            output=folder / "reports",
            adapter=demo / "train" / "adapter",
            limit=3,
            max_new_tokens=24,
            tracking=there,
        )
    )
    return folder / "reports", there


def stored(there: TrackingSettings, experiment: str = "cxrreport") -> list[Any]:
    client = MlflowClient(there.uri)
    return list(client.search_traces(locations=[client.get_experiment_by_name(experiment).experiment_id]))


def test_every_report_has_a_trace_without_text_and_ids(traced):
    reports, there = traced
    rows = {row["study_id"]: row for row in map(json.loads, (reports / "predictions.jsonl").read_text().splitlines())}
    lines = [json.loads(line) for line in (reports / "traces.jsonl").read_text().splitlines()]
    found = {trace.info.trace_id: trace for trace in stored(there)}
    assert len(found) == len(rows) == 3
    assert {line["study_id"] for line in lines} == rows.keys()
    for line in lines:
        trace, row = found[line["trace_id"]], rows[line["study_id"]]
        (span,) = trace.data.spans
        assert trace.info.execution_duration > 0
        assert span.attributes["tokens"] == row["tokens"]
        assert span.attributes["mean_logprob"] == row["mean_logprob"]
        assert trace.info.tags["abstained"] == "false"
        assert trace.info.tags["finished"] == str(row["finished"]).lower()
        everything = json.dumps(trace.to_dict()).lower()
        assert not [word for word in (*TEXTS, line["study_id"], row["patient_id"]) if word in everything]


def test_a_resumed_run_logs_no_trace_again(traced):
    reports, there = traced
    record = json.loads((reports / "generate.json").read_text())
    runs.generate(build(GenerateSettings, record["settings"] | {"tracking": there}, where="test"))
    assert len(stored(there)) == 3


def test_text_is_logged_if_it_is_allowed(demo, tmp_path):
    there = TrackingSettings(uri=f"sqlite:///{tmp_path / 'mlflow.db'}", traces=True, log_reports=True)
    data, adapter = demo / "ingest", demo / "train" / "adapter"
    given = {"input": data, "adapter": adapter, "limit": 1, "max_new_tokens": 24, "tracking": there}
    runs.generate(GenerateSettings(output=tmp_path / "reports", **given))
    (trace,) = stored(there)
    row = json.loads((tmp_path / "reports" / "predictions.jsonl").read_text())
    assert trace.data.spans[0].outputs == {"text": row["text"]}
    assert trace.data.spans[0].inputs == {"prompt": row["prompt"]}


def test_traces_that_cannot_be_made_are_refused(tmp_path):
    for other in ({"shard": "1/2"}, {"baseline": "nearest"}, {"ray": {"address": "local"}}):
        with pytest.raises(SettingsError, match=r"tracking\.traces: not with"):
            values = {"input": tmp_path, "output": tmp_path / "out", "tracking": {"traces": True}}
            build(GenerateSettings, values | other, where="test")


def verdicts(path: Path, studies: list[str], words: list[str], reader: str) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["study_id", "report", "reader", "verdict", "written_at"])
        table.writeheader()
        for study, word in zip(studies, words, strict=True):
            when = "2026-01-01T00:00:00Z"
            row = {"study_id": study, "report": "generated", "reader": reader, "verdict": word, "written_at": when}
            table.writerow(row)
    return path


def test_verdicts_are_feedback_on_the_traces(traced, tmp_path):
    reports, there = traced
    lines = [json.loads(line) for line in (reports / "traces.jsonl").read_text().splitlines()]
    studies = [line["study_id"] for line in lines]
    trace_of = {line["study_id"]: line["trace_id"] for line in lines}
    first = verdicts(tmp_path / "a.csv", [*studies, "other"], ["acceptable", "minor", "minor", "minor"], "SECRETNAME")
    second = verdicts(tmp_path / "b.csv", studies[:1], ["significant"], "OTHERNAME")

    def said(study: str) -> dict[str, Any]:
        info = MlflowClient(there.uri).get_trace(trace_of[study]).info
        assert "NAME" not in str(info)
        return {one.source.source_id: one.feedback.value for one in info.assessments if one.valid is not False}

    settings = FeedbackSettings(verdicts=(first,), predictions=reports, tracking=there)
    assert runs.feedback(settings) == {"reports": 3, "values": 3, "without_trace": 1}
    assert runs.feedback(settings)["values"] == 0
    assert runs.feedback(settings.model_copy(update={"verdicts": (second,)}))["values"] == 1
    assert said(studies[0]) == {"reader 1": "acceptable", "reader 2": "significant"}
    verdicts(first, studies, ["minor", "minor", "minor"], "SECRETNAME")
    assert runs.feedback(settings)["values"] == 1
    assert said(studies[0]) == {"reader 1": "minor", "reader 2": "significant"}
    with pytest.raises(InputError, match=r"tracking\.traces=true"):
        runs.feedback(settings.model_copy(update={"predictions": tmp_path}))


def test_a_served_model_logs_traces_only_if_it_is_told_to(demo, tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    context = SimpleNamespace(
        artifacts={"adapter": str(demo / "train" / "adapter")},
        model_config={"max_pixels": 10**7, "max_rows": 2, "batch_size": 2, "max_new_tokens": 12},
    )

    def answer() -> Any:
        model = serving.ReportModel()
        model.load_context(context)
        frame = pd.DataFrame([{"dicom": example(), "indication": "Cough."}])
        (report,) = model.predict(context, frame).to_dict("records")
        if model._tracer is not None:
            model._tracer.flush()
        return report

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("CXRREPORT_SERVING_TRACES", raising=False)
    answer()
    assert tracking.is_new(uri)
    monkeypatch.setenv("CXRREPORT_SERVING_TRACES", "served")
    report = answer()
    (trace,) = stored(TrackingSettings(uri=uri), "served")
    assert trace.info.execution_duration > 0
    assert trace.info.tags["finished"] == str(report["finished"]).lower()
    assert report["text"] not in json.dumps(trace.to_dict())
    assert "ough" not in json.dumps(trace.to_dict())
    monkeypatch.setenv("CXRREPORT_SERVING_TRACE_TEXT", "1")
    report = answer()
    assert report["text"] in [
        trace.data.spans[0].outputs.get("text")
        for trace in stored(TrackingSettings(uri=uri), "served")
        if trace.data.spans[0].outputs
    ]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(SettingsError, match="set MLFLOW_TRACKING_URI"):
        serving.ReportModel().load_context(context)


def test_evaluation_data_are_found_again_and_conditions_can_be_read(demo):
    import yaml

    client = MlflowClient(f"sqlite:///{demo.resolve()}/mlflow.db")
    scores = json.loads((demo / "evaluate" / "scores.json").read_text())
    digest = scores["conditions"]["references"]
    (data,) = client.search_datasets(filter_string=f"tags.digest = '{digest}'")
    assert data.name == f"references-{digest[:12]}"
    assert data.tags["scored"] == str(scores["counts"]["scored"])
    summary = json.loads((demo / "summary.json").read_text())
    run = client.get_run(summary["run_ids"]["evaluate"])
    path = Path(client.download_artifacts(run.info.run_id, "conditions.yaml"))
    assert yaml.safe_load(path.read_text()) == scores["conditions"]


def evaluated(demo: Path, reports: Path, texts: dict[str, dict[str, str]] | None = None) -> Path:
    """Scores of reports, or of other texts in their place."""
    if texts is not None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(reports / "predictions.parquet")
        for column in ("text", "findings", "impression"):
            new = pa.array([texts[study][column] for study in table["study_id"].to_pylist()])
            table = table.set_column(table.column_names.index(column), column, new)
        pq.write_table(table, reports / "predictions.parquet")
    settings = EvaluateSettings(
        predictions=reports,
        references=demo / "ingest",
        output=reports.with_name(f"{reports.name}-scores"),
        radgraph="tiny",
        metrics=("radgraph",),
        tracking=TrackingSettings(enabled=False),
    )
    runs.evaluate(settings)
    return settings.output


def test_a_model_is_registered_if_it_is_better_by_the_paired_test(demo, tmp_path):
    from cxrreport.dataset import Manifest

    studies = Manifest.open(demo / "ingest").studies()
    perfect = {
        study.study_id: {
            "text": f"FINDINGS: {study.report.findings} IMPRESSION: {study.report.impression}",
            "findings": study.report.findings,
            "impression": study.report.impression,
        }
        for study in studies
    }
    given = {"input": demo / "ingest", "adapter": demo / "train" / "adapter", "split": None, "max_new_tokens": 24}
    nothing = TrackingSettings(enabled=False)
    runs.generate(GenerateSettings(output=tmp_path / "own", tracking=nothing, **given))
    shutil.copytree(tmp_path / "own", tmp_path / "better")
    own, better = evaluated(demo, tmp_path / "own"), evaluated(demo, tmp_path / "better", perfect)
    there = TrackingSettings(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")

    def register(scores: Path, **values: Any) -> serving.Registered:
        given = {"adapter": demo / "train" / "adapter", "name": "reports", "tracking": there, "scores": scores}
        return serving.register(RegisterSettings(**given, if_better_than="champion", aliases=("champion",), **values))

    first = register(own)
    assert first.better_than == ""  # nothing had the alias
    with pytest.raises(ScoreError, match=r"not better than reports@champion \(radgraph_partial .* paired test"):
        register(own)
    client = MlflowClient(there.uri)
    version = client.get_model_version_by_alias("reports", "champion")
    assert str(version.version) == first.version
    scores = json.loads((own / "scores.json").read_text())["systems"]["model"]["radgraph_partial"]
    assert version.tags["radgraph_partial"] == f"{scores['value']:.4f}"
    assert (
        f"| radgraph_partial | {scores['value']:.3f} | {scores['low']:.3f} to {scores['high']:.3f} |"
        in version.description
    )
    assert "Not a medical device" in version.description
    assert "library_name" not in version.description
    second = register(better)
    assert second.better_than == "champion"
    assert str(client.get_model_version_by_alias("reports", "champion").version) == second.version
    (tmp_path / "better-scores").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="--against DIR"):
        register(own)
    with pytest.raises(ScoreError, match="not better"):
        register(own, against=tmp_path / "moved")
    record = json.loads((tmp_path / "own" / "generate.json").read_text())
    (tmp_path / "own" / "generate.json").write_text(json.dumps(record | {"provenance": {"adapter": "0" * 64}}))
    with pytest.raises(MismatchError, match="scores of another adapter"):
        register(own)
    with pytest.raises(SettingsError, match="--scores DIR"):
        serving.register(
            RegisterSettings(
                adapter=demo / "train" / "adapter", name="reports", if_better_than="champion", tracking=there
            )
        )
