"""What `cxrreport status` says of a run, from its files alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from plain_studies import write_studies
from typer.testing import CliRunner

from cxrreport import runs
from cxrreport.cli import app
from cxrreport.errors import InputError
from cxrreport.ingestion import ingest
from cxrreport.settings import IngestSettings, TrackingSettings
from cxrreport.storage import run_progress


def settings(folder: Path, **changes: object) -> IngestSettings:
    given = {"input": folder / "in", "output": folder / "out", "layout": "folder", "require_report": False}
    return IngestSettings(**given | changes, tracking=TrackingSettings(enabled=False))  # type: ignore[arg-type]


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ingest that stopped in the middle; `out` is its output folder."""
    monkeypatch.setattr(run_progress, "_SECONDS", 0.0)
    monkeypatch.setattr(ingest, "STUDIES_PER_SHARD", 2)
    write_studies(tmp_path / "in", 6)

    def stop(done: int, total: int, label: str) -> None:
        if (label, done) == ("studies", 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.ingest(settings(tmp_path), progress=stop)
    return tmp_path


def test_a_run_is_running_stopped_or_finished(stopped: Path) -> None:
    (running,) = runs.status(stopped / "out")
    assert (running.command, running.state) == ("ingest", "running")
    stage = running.stages[-1]
    assert (stage.label, stage.done, stage.total) == ("studies", 4, 6)
    assert stage.rate is not None and stage.rate > 0
    assert stage.seconds_left == pytest.approx((stage.total - stage.done) / stage.rate)
    file = stopped / "out" / run_progress.PROGRESS
    record = json.loads(file.read_text())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    file.write_text(json.dumps(record | {"process": ended.pid}))
    (found,) = runs.status(stopped / "out")
    assert found.state == "stopped"
    assert "resume" in found.note
    runs.ingest(settings(stopped))
    (finished,) = runs.status(stopped / "out")
    assert finished.state == "finished"
    assert not file.exists()


def test_another_machine_is_judged_by_the_age_of_its_progress(stopped: Path) -> None:
    file = stopped / "out" / run_progress.PROGRESS
    record = json.loads(file.read_text()) | {"machine": "elsewhere"}
    for age, state in ((60, "running"), (7200, "stopped")):
        for stage in record["stages"].values():
            stage["updated"] = time.time() - age
        file.write_text(json.dumps(record))
        assert runs.status(stopped / "out")[0].state == state


def test_jobs_of_an_array_and_a_folder_of_outputs(stopped: Path) -> None:
    runs.ingest(settings(stopped, shard="1/2"))
    found = runs.status(stopped / "out")
    assert [one.folder.name for one in found] == ["out", "1-of-2"]
    assert [one.folder.name for one in runs.status(stopped)] == ["out"]


def test_the_command_prints_it(stopped: Path) -> None:
    shown = CliRunner().invoke(app, ["status", str(stopped / "out")])
    assert shown.exit_code == 0
    assert "studies: 4 of 6" in shown.output
    (one,) = json.loads(CliRunner().invoke(app, ["status", str(stopped / "out"), "--json"]).output)["folders"]
    assert one["stages"][-1]["total"] == 6


def test_no_output_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no output folder"):
        runs.status(tmp_path)


def test_progress_is_no_foreign_file(stopped: Path) -> None:
    assert (stopped / "out" / run_progress.PROGRESS).exists()
    assert runs.ingest(settings(stopped)).facts["kept"] == 6
