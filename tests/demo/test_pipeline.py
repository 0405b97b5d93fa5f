from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from small_demo import run_small_demo

from cxrreport.demo import pipeline as demo_module
from cxrreport.demo.pipeline import SYSTEMS, run_demo, train_settings
from cxrreport.errors import OutputError
from cxrreport.settings import DemoSettings

ROOT = Path(__file__).parents[2]


def silent(*_):
    pass


@pytest.fixture(scope="module")
def small_run(small_demo):
    folder, done, _ = small_demo
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads((folder / "summary.json").read_text())
    return DemoSettings(output=folder), summary, lambda: run_small_demo(folder)


def test_the_summary_has_an_interval_for_every_system(small_run):
    settings, summary, _ = small_run
    assert json.loads((settings.output / "summary.json").read_text()) == summary
    assert tuple(summary["radgraph_f1"]) == SYSTEMS
    for scores in (summary["radgraph_f1"], summary["finding_f1"]):
        assert all(0 <= one["low"] <= one["value"] <= one["high"] <= 1 for one in scores.values())
    assert summary["synthetic"] is True
    assert {"phantoms", "ingest", "train", "generate tuned", "evaluate", "review"} <= summary["seconds"].keys()


def test_every_step_is_a_finished_run_below_one_parent(small_run):
    from mlflow import MlflowClient

    settings, summary, _ = small_run
    client = MlflowClient(f"sqlite:///{settings.output.resolve()}/mlflow.db")
    ids = summary["run_ids"]
    assert client.get_run(ids["demo"]).info.status == "FINISHED"
    for step, run_id in ids.items():
        run = client.get_run(run_id)
        assert run.info.status == "FINISHED"
        if step != "demo":
            # An evaluation is nested below its training, and that below the demo.
            above = ids["train"] if step == "evaluate" else ids["demo"]
            assert run.data.tags["mlflow.parentRunId"] == above
            assert run.data.params
    assert client.get_run(ids["train"]).data.metrics["loss"] > 0


def test_rerunning_the_demo_resumes_with_equal_results(small_run):
    settings, summary, again = small_run
    before = (settings.output / "generate" / "predictions.parquet").stat().st_mtime_ns
    repeated = again()
    volatile = {"peak_memory_mb"}
    assert {k: v for k, v in repeated.items() if k not in volatile} == {
        k: v for k, v in summary.items() if k not in volatile
    }
    assert (settings.output / "generate" / "predictions.parquet").stat().st_mtime_ns == before


def test_another_seed_is_refused_in_the_same_folder(small_run):
    settings, _, _ = small_run
    with pytest.raises(OutputError, match="seed was 0 and is 1"):
        run_demo(settings.model_copy(update={"seed": 1}), silent)


def test_no_report_reaches_mlflow(small_run):
    settings, _, _ = small_run
    stored = b"".join(path.read_bytes() for path in (settings.output / "mlartifacts").rglob("*") if path.is_file())
    assert b"pleural effusion" not in stored
    assert b"PHANTOM^" not in stored


def test_the_shipped_configuration_is_that_of_the_demo():
    shipped = yaml.safe_load((ROOT / "configs" / "train-demo.yaml").read_text())
    recipe = train_settings(Path(shipped["data"]), Path(shipped["output"]))
    assert type(recipe).model_validate(shipped).model_dump() == recipe.model_dump()


def test_the_table_fits_a_terminal(small_run, monkeypatch):
    from typer.testing import CliRunner

    from cxrreport.cli import app

    settings, summary, _ = small_run
    monkeypatch.setattr(demo_module, "run_demo", lambda *_: summary)
    result = CliRunner().invoke(app, ["demo", "--out", str(settings.output)], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert "most frequent" in result.output
    assert "mlflow ui" in result.output
    table = [line for line in result.output.splitlines() if str(settings.output) not in line]
    assert max(len(line) for line in table) <= 80


@pytest.mark.slow
def test_the_demo_at_896_pixels(tmp_path, monkeypatch):
    """4,096 image tokens: trains, generates and scores, with a step and a few patients."""
    small = replace(demo_module.SCALES[896], patients=20, smallest=200, full_size=0, max_steps=1)
    monkeypatch.setitem(demo_module.SCALES, 896, small)
    summary = run_demo(DemoSettings(output=tmp_path / "demo", resolution=896), silent)
    assert summary["resolution"] == 896
    assert summary["studies"] >= 4
    assert tuple(summary["radgraph_f1"]) == SYSTEMS
