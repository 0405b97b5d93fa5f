"""Which commands are one MLflow run: repeated, interrupted, killed, or started twice at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from stored_runs import ON, client, run_ids, stored

from cxrreport import tracking
from cxrreport.errors import OutputError
from cxrreport.settings import IngestSettings

pytestmark = pytest.mark.stock("mlflow")


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


def test_a_second_process_with_the_same_command_does_not_change_the_first_run(settings: IngestSettings) -> None:
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
