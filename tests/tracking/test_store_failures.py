"""A store that cannot be used, fails while a command runs, or responds slowly."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from stored_runs import ON, client, stored

from cxrreport import tracking
from cxrreport.errors import TrackingError
from cxrreport.settings import IngestSettings, TrackingSettings
from cxrreport.tracking import spool

pytestmark = pytest.mark.stock("mlflow")


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


def test_a_store_that_fails_during_a_run_gets_all_events_later(
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
    assert (settings.output.parent / "mlartifacts" / run.run_id / "artifacts" / Path(__file__).name).is_file()


def test_unsent_events_go_to_their_own_store_only(settings: IngestSettings, tmp_path: Path) -> None:
    left = settings.output.parent / f".mlflow-unsent-{'0' * 32}.jsonl"
    left.write_text('{"kind": "store", "uri": "http://elsewhere"}\n{"kind": "cut off', encoding="utf-8")
    with pytest.raises(TrackingError, match="elsewhere"):
        tracking.sync(settings.output.parent)
    with tracking.start("ingest", settings, ON, output=settings.output):
        pass
    assert left.exists()


def test_a_slow_store_does_not_delay_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
