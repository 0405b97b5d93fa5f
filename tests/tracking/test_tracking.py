"""Runs in a real SQLite store on disk; nothing is mocked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from stored_runs import ON, client, stored

import cxrreport
from cxrreport import tracking
from cxrreport.errors import OutputError
from cxrreport.settings import EvaluateSettings, IngestSettings, TrackingSettings

pytestmark = pytest.mark.stock("mlflow")


def test_a_run_holds_settings_numbers_files_and_data(settings: IngestSettings, tmp_path: Path) -> None:
    picture = tmp_path / "loss.png"
    picture.write_bytes(b"png")
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"w")
    with tracking.start("ingest", settings, ON, output=settings.output) as run:
        for step in range(3):
            run.metrics({"loss": 1.0 / (step + 1), "f1 (partial)": 0.5}, step=step)
        run.metrics({"kept": 7})
        run.artifact(picture)
        run.artifact(folder)
        run.dataset("manifest", "ab" * 32, "output", studies=7)
        assert stored(settings, run.run_id).info.status == "RUNNING"

    found = stored(settings, run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params["resolution"] == "224"
    assert found.data.params["reports"] == "null"
    assert not any(name.startswith("tracking") for name in found.data.params)
    assert found.data.metrics["kept"] == 7
    assert found.data.metrics["seconds"] > 0 and found.data.metrics["peak_memory_mb"] > 10
    history = client(settings).get_metric_history(run.run_id, "loss")
    assert [(point.step, round(point.value, 3)) for point in history] == [(0, 1.0), (1, 0.5), (2, 0.333)]
    assert found.info.run_name == f"ingest-{settings.output.name}"
    assert found.data.tags["cxrreport.verb"] == "ingest"
    assert found.data.tags["version.torch"].startswith("2.")
    (entry,) = found.inputs.dataset_inputs
    assert entry.dataset.name == "manifest" and ("ab" * 32).startswith(entry.dataset.digest)
    assert json.loads(entry.dataset.profile) == {"studies": 7}
    assert [tag.value for tag in entry.tags] == ["output"]
    assert found.data.tags["digest.output.manifest"] == "ab" * 32
    artifacts = settings.output.parent / "mlartifacts" / run.run_id / "artifacts"
    assert {path.relative_to(artifacts).as_posix() for path in artifacts.rglob("*") if path.is_file()} == {
        "loss.png",
        "adapter/weights.bin",
        "settings.json",
    }
    assert json.loads((artifacts / "settings.json").read_text())["resolution"] == 224


def test_the_commit_is_known_in_a_checkout(settings: IngestSettings) -> None:
    root = Path(cxrreport.__file__).parents[1]
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    with tracking.start("ingest", settings, ON, output=settings.output) as run:
        pass
    assert stored(settings, run.run_id).data.tags["mlflow.source.git.commit"] == head.stdout.strip()


def test_long_values_are_hashed_in_parameters_and_complete_in_the_artifact(tmp_path: Path, empty_store: Path) -> None:
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    baselines = {f"baseline {index}": tmp_path.joinpath(*["x" * 200] * 3) for index in range(2)}
    settings = EvaluateSettings(predictions=tmp_path, references=tmp_path, output=tmp_path / "out", baselines=baselines)
    flat = tracking.settings_to_params(settings)
    assert flat["baselines.baseline 0"].startswith("sha256:") and len(flat["baselines.baseline 0"]) < 500
    with tracking.start("evaluate", settings, ON, output=settings.output) as run:
        pass
    whole = tmp_path / "mlartifacts" / run.run_id / "artifacts" / "settings.json"
    assert json.loads(whole.read_text())["baselines"]["baseline 1"].endswith("/".join(["x" * 200] * 3))


def test_children_are_nested_under_their_parent(settings: IngestSettings) -> None:
    with tracking.start("demo", settings, ON, output=settings.output) as parent:
        below = TrackingSettings(parent_run_id=parent.run_id)
        child_settings = settings.model_copy(update={"output": settings.output.parent / "child"})
        with tracking.start("ingest", child_settings, below, output=child_settings.output) as child:
            pass
    assert stored(settings, child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id
    assert stored(settings, parent.run_id).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("error", "status", "tag"),
    [
        (OutputError("disk full"), "FAILED", "OutputError"),
        (ValueError("Mrs Example, born 1950"), "FAILED", "ValueError"),
        (KeyboardInterrupt(), "KILLED", None),
    ],
)
def test_the_status_of_a_failed_run(
    settings: IngestSettings, error: BaseException, status: str, tag: str | None
) -> None:
    with pytest.raises(type(error)), tracking.start("ingest", settings, ON, output=settings.output) as run:
        run.metrics({"kept": 3})
        raise error
    found = stored(settings, run.run_id)
    assert found.info.status == status
    assert found.data.metrics["kept"] == 3
    assert found.data.tags.get("cxrreport.error") == tag


def test_disabled_tracking_writes_nothing(tmp_path: Path) -> None:
    settings = IngestSettings(input=tmp_path / "in", output=tmp_path / "work" / "out")
    with tracking.start("ingest", settings, TrackingSettings(enabled=False), output=settings.output) as run:
        run.metrics({"kept": 1.0}, step=1)
        run.artifact(Path("nowhere"))
        run.dataset("manifest", "00", "output")
        run.tags({"a": "b"})
    assert run.run_id == ""
    assert [path.name for path in tmp_path.rglob("*")] == []


def test_the_environment_names_the_store(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "central").mkdir()
    shutil.copyfile(empty_store, tmp_path / "central" / "runs.db")
    settings = IngestSettings(input=tmp_path / "in", output=tmp_path / "work" / "out")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'central' / 'runs.db'}")
    with tracking.start("ingest", settings, ON, output=settings.output):
        pass
    store = MlflowClient(f"sqlite:///{tmp_path / 'central' / 'runs.db'}")
    assert len(store.search_runs([store.get_experiment_by_name("cxrreport").experiment_id])) == 1
    assert (tmp_path / "central" / "mlartifacts").exists()
    assert not (settings.output.parent / "mlflow.db").exists()


def test_telemetry_is_off() -> None:
    from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY

    assert MLFLOW_DISABLE_TELEMETRY.get() is True
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert os.environ["DO_NOT_TRACK"] == "1"


def test_system_metrics_are_logged_unless_disabled(settings: IngestSettings) -> None:
    every = TrackingSettings(system_metrics_every=1)
    with tracking.start("ingest", settings, every, output=settings.output) as run:
        time.sleep(1.5)
    found = stored(settings, run.run_id).data.metrics
    assert 0 <= found["system/cpu_utilization_percentage"] <= 100
    assert 0 < found["system/system_memory_usage_percentage"] <= 100
    history = client(settings).get_metric_history(run.run_id, "system/cpu_utilization_percentage")
    assert len({point.step for point in history}) == len(history) >= 2
    other = settings.model_copy(update={"output": settings.output.parent / "other"})
    with tracking.start("ingest", other, TrackingSettings(system_metrics_every=None), output=other.output) as run:
        pass
    assert not any(name.startswith("system/") for name in stored(settings, run.run_id).data.metrics)


def test_runs_point_to_those_that_made_what_went_into_them(settings: IngestSettings) -> None:
    elsewhere = TrackingSettings(experiment="another experiment")
    with tracking.start("train", settings, elsewhere, output=settings.output) as train:
        train.dataset("adapter", "ab" * 32, "output")
    other = settings.model_copy(update={"output": settings.output.parent / "other"})
    with tracking.start("evaluate", other, ON, output=other.output) as run:
        run.link("cxrreport.model_run", "adapter", "ab" * 32, parent=True, values={"kappa": 0.5, "a,b": 1})
        run.link("cxrreport.predictions_run", "predictions", "cd" * 32)
    tags = stored(settings, run.run_id).data.tags
    assert tags["cxrreport.model_run"] == tags["mlflow.parentRunId"] == train.run_id
    assert "cxrreport.predictions_run" not in tags
    theirs = client(settings).get_run(train.run_id).data.metrics
    assert theirs["kappa"] == 0.5 and any(name.startswith("a_b") for name in theirs)
    assert "kappa" not in stored(settings, run.run_id).data.metrics
