"""Runs in a real SQLite store on disk; nothing is mocked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as StoredRun

import cxrreport
from cxrreport import tracking
from cxrreport.errors import OutputError, TrackingError
from cxrreport.settings import EvaluateSettings, IngestSettings, TrackingSettings
from cxrreport.tracking import spool

pytestmark = pytest.mark.stock("mlflow")

ON = TrackingSettings()


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a process that was killed while it created the store."""
    script = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from cxrreport.tracking import count_experiments
tables = []
@event.listens_for(Engine, "before_cursor_execute")
def _(connection, cursor, statement, *rest):
    tables.append(statement)
    if sum("CREATE TABLE" in each for each in tables) == 12:
        os.kill(os.getpid(), signal.SIGKILL)
count_experiments(sys.argv[1])
"""
    folder = tmp_path_factory.mktemp("store")
    killed = subprocess.run([sys.executable, "-c", script, f"sqlite:///{folder / 'mlflow.db'}"], check=False)
    assert killed.returncode == -9
    assert list(folder.iterdir()) != []
    return folder


@pytest.fixture(scope="session")
def empty_store(interrupted: Path) -> Path:
    """A database with its tables and nothing in them, shared because its creation takes seconds."""
    path = interrupted / "mlflow.db"
    tracking.count_experiments(f"sqlite:///{path}")
    return path


@pytest.fixture
def settings(tmp_path: Path, empty_store: Path) -> IngestSettings:
    (tmp_path / "work").mkdir()
    shutil.copyfile(empty_store, tmp_path / "work" / "mlflow.db")
    return IngestSettings(input=tmp_path / "in", output=tmp_path / "work" / "out")


def client(settings: IngestSettings) -> MlflowClient:
    return MlflowClient(f"sqlite:///{settings.output.parent / 'mlflow.db'}")


def stored(settings: IngestSettings, run_id: str) -> StoredRun:
    return client(settings).get_run(run_id)


def run_ids(settings: IngestSettings) -> list[str]:
    store = client(settings)
    experiment = store.get_experiment_by_name("cxrreport")
    return [run.info.run_id for run in store.search_runs([experiment.experiment_id])]


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


def test_values_too_long_for_a_store_are_named_by_their_hash_and_kept_whole(tmp_path: Path, empty_store: Path) -> None:
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


def test_the_same_command_resumes_its_run_and_repeats_no_step(settings: IngestSettings) -> None:
    def leg(steps: range, *, stop: bool) -> str:
        with tracking.start("train", settings, ON, output=settings.output) as run:
            settings.output.mkdir(parents=True, exist_ok=True)
            for step in steps:
                run.metrics({"loss": float(step)}, step=step)
            run.metrics({"kept": 3})  # of the summary: step 0
            if stop:
                raise OutputError("the disk is full")
        return run.run_id

    with pytest.raises(OutputError):
        leg(range(5), stop=True)
    run_id = leg(range(3, 8), stop=False)
    assert run_ids(settings) == [run_id]
    assert stored(settings, run_id).info.status == "FINISHED"
    assert "cxrreport.error" not in stored(settings, run_id).data.tags
    assert [point.step for point in client(settings).get_metric_history(run_id, "loss")] == list(range(8))
    assert [point.step for point in client(settings).get_metric_history(run_id, "seconds")] == [1, 2]
    assert [point.step for point in client(settings).get_metric_history(run_id, "kept")] == [0]


def test_other_settings_or_a_removed_output_are_a_new_run(settings: IngestSettings) -> None:
    def open_and_close(given: IngestSettings) -> str:
        with tracking.start("ingest", given, ON, output=given.output) as run:
            given.output.mkdir(parents=True, exist_ok=True)
        return run.run_id

    first = open_and_close(settings)
    same = open_and_close(settings.model_copy(update={"workers": 2}))
    other = open_and_close(settings.model_copy(update={"resize": "pad"}))
    settings.output.rmdir()
    again = open_and_close(settings)
    assert first == same
    assert len({first, other, again}) == 3


def test_a_second_process_on_the_same_command_leaves_the_first_ones_run_alone(settings: IngestSettings) -> None:
    with tracking.start("ingest", settings, ON, output=settings.output) as first:
        settings.output.mkdir()
        with (
            pytest.raises(OutputError, match="running the same command"),
            tracking.start("ingest", settings, ON, output=settings.output),
        ):
            pass
        assert stored(settings, first.run_id).info.status == "RUNNING"
    found = stored(settings, first.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.tags["cxrreport.leg"] == "1"
    assert run_ids(settings) == [first.run_id]


def test_switched_off_writes_nothing_and_takes_everything(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("uri", ["http://user:secret@127.0.0.1:9", "nonsense://here"])
def test_a_store_that_cannot_be_used_is_one_clear_error(
    settings: IngestSettings, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    wrong = TrackingSettings(uri=uri)
    with (
        pytest.raises(TrackingError, match=r"tracking\.uri") as caught,
        tracking.start("ingest", settings, wrong, output=settings.output),
    ):
        pass
    assert "secret" not in str(caught.value)


def test_an_unknown_parent_is_refused(settings: IngestSettings) -> None:
    lost = TrackingSettings(parent_run_id="0" * 32)
    with pytest.raises(TrackingError), tracking.start("ingest", settings, lost, output=settings.output):
        pass


def test_a_refused_event_is_a_warning(settings: IngestSettings, caplog: pytest.LogCaptureFixture) -> None:
    with tracking.start("ingest", settings, ON, output=settings.output) as run:
        run.artifact(settings.output / "nowhere.png")
        run.metrics({"kept": 1.0})
    found = stored(settings, run.run_id)
    assert (found.info.status, found.data.metrics["kept"]) == ("FINISHED", 1.0)
    assert "refused artifact" in caplog.text
    assert "nowhere.png no longer exists" in caplog.text


def test_a_store_that_fails_in_mid_run_costs_nothing_and_gets_all_of_it_later(
    settings: IngestSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(spool, "PATIENCE", 0.5)
    settings.output.mkdir()
    with monkeypatch.context() as patch:
        with tracking.start("ingest", settings, ON, output=settings.output) as run:
            for name in ("log_batch", "log_artifact", "log_inputs", "set_terminated"):
                patch.setattr(MlflowClient, name, refuse)
            began = time.monotonic()
            for step in range(1000):
                run.metrics({"loss": 1.0 / (step + 1)}, step=step)
            run.artifact(Path(__file__))
            run.dataset("manifest", "ab" * 32, "training")
            assert time.monotonic() - began < 1
        assert time.monotonic() - began < 10
        assert caplog.text.count("does not respond") == 1
        assert "cxrreport sync" in caplog.text
        (left,) = settings.output.parent.glob(".mlflow-unsent-*")
        assert stored(settings, run.run_id).info.status == "RUNNING"
        copy = left.read_bytes()

    assert tracking.sync(settings.output.parent) == 1
    left.write_bytes(copy)  # as if it had been cut off after sending, and before the file was removed
    assert tracking.sync(settings.output.parent) == 1
    assert tracking.sync(settings.output.parent) == 0
    found = stored(settings, run.run_id)
    assert found.info.status == "FINISHED"
    steps = [point.step for point in client(settings).get_metric_history(run.run_id, "loss")]
    assert steps == list(range(1000))
    assert len(found.inputs.dataset_inputs) == 1
    assert (settings.output.parent / "mlartifacts" / run.run_id / "artifacts" / "test_tracking.py").is_file()


def test_sigkill_leaves_a_run_that_resumes_and_events_that_the_next_run_sends(settings: IngestSettings) -> None:
    script = """
import os, signal, sys
from cxrreport import tracking
from cxrreport.settings import IngestSettings, TrackingSettings
settings = IngestSettings(input=sys.argv[1], output=sys.argv[2])
with tracking.start("ingest", settings, TrackingSettings(), output=settings.output) as run:
    settings.output.mkdir(parents=True)
    run.metrics({"loss": 0.5}, step=1)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script, str(settings.input), str(settings.output)], check=False)
    assert killed.returncode == -9
    (run_id,) = run_ids(settings)
    assert stored(settings, run_id).info.status == "RUNNING"
    other = settings.model_copy(update={"output": settings.output.parent / "other"})
    with tracking.start("ingest", other, ON, output=other.output):
        pass
    assert stored(settings, run_id).data.metrics["loss"] == 0.5
    assert list(settings.output.parent.glob(".mlflow-unsent-*")) == []
    with tracking.start("ingest", settings, ON, output=settings.output) as run:
        assert run.run_id == run_id
    assert stored(settings, run_id).info.status == "FINISHED"


def test_unsent_events_go_to_their_own_store_only(settings: IngestSettings, tmp_path: Path) -> None:
    left = settings.output.parent / f".mlflow-unsent-{'0' * 32}.jsonl"
    left.write_text('{"kind": "store", "uri": "http://elsewhere"}\n{"kind": "cut off', encoding="utf-8")
    with pytest.raises(TrackingError, match="elsewhere"):
        tracking.sync(settings.output.parent)
    with tracking.start("ingest", settings, ON, output=settings.output):
        pass
    assert left.exists()


def test_an_interrupted_creation_of_the_store_is_repeated(empty_store: Path) -> None:
    assert [path.name for path in empty_store.parent.iterdir()] == ["mlflow.db"]


def test_two_processes_that_start_together_create_one_store_silently(tmp_path: Path) -> None:
    script = """
import sys
from cxrreport import tracking
from cxrreport.settings import IngestSettings, TrackingSettings
settings = IngestSettings(input=sys.argv[1], output=sys.argv[2])
with tracking.start("ingest", settings, TrackingSettings(), output=settings.output) as run:
    run.metrics({"kept": 1})
"""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "in"), str(tmp_path / "work" / name)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for name in ("a", "b")
    ]
    assert [process.communicate(timeout=400)[0] for process in both] == [b"", b""]
    assert [process.returncode for process in both] == [0, 0]
    assert len(run_ids(IngestSettings(input=tmp_path / "in", output=tmp_path / "work" / "a"))) == 2


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
        run.link("cxrreport.model_run", "adapter", "ab" * 32, parent=True)
        run.link("cxrreport.predictions_run", "predictions", "cd" * 32)
    tags = stored(settings, run.run_id).data.tags
    assert tags["cxrreport.model_run"] == tags["mlflow.parentRunId"] == train.run_id
    assert "cxrreport.predictions_run" not in tags


def test_a_store_that_answers_slowly_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "LIMIT", 1.0)
    asked: list[int] = []

    def slowly(events: Any) -> None:
        asked.append(len(events))
        time.sleep(20)

    events = [{"kind": "metrics", "step": step} for step in range(2000)]
    unsent = spool.Spool(tmp_path / "unsent", slowly)
    began = time.monotonic()
    for event in events:
        unsent.put(event)
    assert time.monotonic() - began < 2
    assert unsent.close() is False
    assert time.monotonic() - began < 5
    assert [json.loads(line) for line in (tmp_path / "unsent").read_text().splitlines()] == events
    sent: list[Any] = []
    assert spool.resend(tmp_path / "unsent", sent.extend) == len(events)
    assert sent == events
