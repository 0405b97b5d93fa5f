from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from small_demo import run_small_demo

from cxrreport import runs
from cxrreport.demo import pipeline as demo_module
from cxrreport.demo import two_processes
from cxrreport.demo.phantoms import files
from cxrreport.demo.pipeline import SYSTEMS, run_demo, train_settings
from cxrreport.errors import OutputError, TrainingError
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


def test_the_demo_runs_the_shipped_files_as_they_are(tmp_path, monkeypatch):
    """Every `configs/*-demo*.yaml` but those of pairs and nothing else, so that its commands can be repeated."""
    ran = {}

    class Stop(Exception):
        pass

    def note(command):
        def run(settings, *_, **__):
            ran[str(settings.output)] = (command, settings)
            return runs.Summary(
                command=command, output=settings.output, seconds=0.0, run_id="", tracking_uri="", facts={}, result=None
            )

        return run

    for command in ("ingest", "generate", "evaluate", "review"):
        monkeypatch.setattr(runs, command, note(command))
    monkeypatch.setattr(demo_module.two_processes, "train", note("train"))
    monkeypatch.setattr(demo_module, "first_report", lambda *_: None)
    monkeypatch.setattr(files, "write_studies", lambda *_, **__: [])
    monkeypatch.setattr(files, "read_truth", lambda _: {})

    def stop(*_):
        raise Stop

    monkeypatch.setattr(demo_module, "_summary", stop)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Stop):
        run_demo(DemoSettings(output=Path("demo-out")), silent)
    shipped = [path for path in sorted((ROOT / "configs").glob("*-demo*.yaml")) if "-demo-prior" not in path.stem]
    assert len(shipped) == len(ran) == 9
    for path in shipped:
        values = yaml.safe_load(path.read_text())
        command, settings = ran.pop(values["output"])
        assert command == path.stem.partition("-")[0]
        read = type(settings).from_yaml(path)
        assert read.model_dump(exclude={"tracking"}) == settings.model_dump(exclude={"tracking"})
        assert read.tracking.experiment == settings.tracking.experiment
    assert not ran


def test_a_command_with_a_shipped_file_takes_the_output_of_the_demo(small_run, monkeypatch):
    """`generate configs/generate-demo.yaml` on the demo's own folder has nothing left to do."""
    from typer.testing import CliRunner

    from cxrreport.cli import app

    settings, _, _ = small_run
    assert settings.output.name == "demo"
    config = settings.output.parent / "generate-demo.yaml"
    config.write_text((ROOT / "configs" / "generate-demo.yaml").read_text().replace("demo-out", str(settings.output)))
    before = (settings.output / "generate" / "predictions.parquet").stat().st_mtime_ns
    done = CliRunner().invoke(app, ["generate", str(config), "--json"])
    assert done.exit_code == 0, done.output
    assert (settings.output / "generate" / "predictions.parquet").stat().st_mtime_ns == before


def test_a_first_report_is_shown_before_the_phantoms_are_made(tmp_path, monkeypatch):
    shown = []

    class Stop(Exception):
        pass

    def stop(*_, patients, **__):
        if patients > 16:
            raise Stop
        return studies_of(*_, patients=patients, **__)

    studies_of = files.write_studies
    monkeypatch.setattr(files, "write_studies", stop)
    with pytest.raises(Stop):
        run_demo(DemoSettings(output=tmp_path / "demo"), silent, show=shown.append)
    (first,) = shown
    assert first.image.shape == (224, 224)
    assert first.findings
    assert first.impression
    assert first.contact_sheet.is_file()


def test_a_process_that_fails_is_an_error_of_the_training(tmp_path):
    recipe = train_settings(tmp_path / "demo", tracking={"enabled": False})
    with pytest.raises(TrainingError, match=r"train: .*data does not exist"):
        two_processes.train(recipe, 2, silent)


def test_the_table_fits_a_terminal(small_run, monkeypatch):
    from typer.testing import CliRunner

    from cxrreport.cli import app

    settings, summary, _ = small_run
    monkeypatch.setattr(demo_module, "run_demo", lambda *_, **__: summary)
    result = CliRunner().invoke(app, ["demo", "--out", str(settings.output)], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert "most frequent" in result.output
    assert "mlflow ui" in result.output
    table = [line for line in result.output.splitlines() if str(settings.output) not in line]
    assert max(len(line) for line in table) <= 80


@pytest.mark.slow
def test_the_demo_at_896_pixels(tmp_path, monkeypatch):
    """4,096 image tokens: trains, generates and scores, with a step and a few patients."""
    once = {"max_steps": 1, "eval_every": 1}
    small = replace(demo_module.SCALES[896], patients=20, smallest=200, full_size=0, train=once)
    monkeypatch.setitem(demo_module.SCALES, 896, small)
    summary = run_demo(DemoSettings(output=tmp_path / "demo", resolution=896), silent)
    assert summary["resolution"] == 896
    assert summary["studies"] >= 4
    assert tuple(summary["radgraph_f1"]) == SYSTEMS


def test_the_findings_of_references_are_those_of_the_phantoms(small_run):
    from cxrreport.demo.finding_metric import finding_f1
    from cxrreport.demo.phantoms.text_findings import read_findings
    from cxrreport.evaluation.inputs.tables import read_references
    from cxrreport.evaluation.metrics import Pairs, finding_scores

    settings, _, _ = small_run
    references = read_references(settings.output / "ingest", "findings+impression").texts
    truth = files.read_truth(settings.output / "phantoms")
    candidates = dict(zip(references, reversed(references.values()), strict=True))
    found = finding_f1(Pairs(references=references, candidates=candidates))["finding_f1"]
    said = {study: read_findings(text) for study, text in candidates.items()}
    assert found.value == finding_scores({study: truth[study] for study in said}, said).f1
