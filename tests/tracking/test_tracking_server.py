"""Runs on a real `mlflow server` on loopback, which dies or hangs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from cxrreport import runs, tracking
from cxrreport.demo.phantoms.files import write_studies
from cxrreport.demo.pipeline import train_settings
from cxrreport.settings import EvaluateSettings, GenerateSettings, IngestSettings, TrackingSettings
from cxrreport.tracking.run import MlflowRun

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts or restarts the server on one port and one database, and waits until it responds."""
    port = free_port()
    folder = tmp_path / "server"
    folder.mkdir()
    running: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ]
        command += ["--backend-store-uri", f"sqlite:///{folder / 'runs.db'}"]
        command += ["--artifacts-destination", str(folder / "artifacts"), "--serve-artifacts"]
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        running.append(process)
        for _ in range(240):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    return process
            except OSError:
                time.sleep(0.5)
        pytest.fail((folder / "log").read_text()[-2000:])

    start.uri = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
    yield start
    for process in running:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)  # the group that this test began: the server and its workers
    except ProcessLookupError:
        return
    process.wait(timeout=30)


def test_a_server_gets_all_events_even_after_a_failure(
    server: Callable[[], subprocess.Popen[bytes]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = server.uri  # type: ignore[attr-defined]
    process = server()
    client = MlflowClient(uri)

    def suspend() -> None:
        os.killpg(process.pid, signal.SIGSTOP)  # it accepts connections but does not respond

    def wake() -> None:
        os.killpg(process.pid, signal.SIGCONT)

    for fail, recover in ((suspend, wake), (lambda: stop(process), server)):
        output = tmp_path / f"after_{recover.__name__}" / "out"
        output.mkdir(parents=True)
        settings = IngestSettings(input=tmp_path / "in", output=output)
        picture = output / "loss.png"
        picture.write_bytes(b"png")
        caplog.clear()
        with tracking.start("ingest", settings, TrackingSettings(uri=uri), output=output) as run:
            run.metrics({"loss": 1.0}, step=0)
            run.artifact(picture)
            time.sleep(5)
            assert client.get_run(run.run_id).data.metrics["loss"] == 1.0
            assert "loss.png" in {item.path for item in client.list_artifacts(run.run_id)}
            fail()
            started = time.monotonic()
            for step in range(1, 200):
                run.metrics({"loss": 1.0 / step}, step=step)
            run.artifact(Path(__file__))
            assert time.monotonic() - started < 1
            ended = time.monotonic()
        assert time.monotonic() - ended < 30
        # one warning from each
        assert [record.name for record in caplog.records] == ["cxrreport.tracking.spool", "cxrreport.tracking.run"]
        recover()
        assert tracking.sync(output.parent, uri) == 1
        found = client.get_run(run.run_id)
        assert found.info.status == "FINISHED"
        assert [point.step for point in client.get_metric_history(run.run_id, "loss")] == list(range(200))
        assert {item.path for item in client.list_artifacts(run.run_id)} == {
            "loss.png",
            "settings.json",
            "test_tracking_server.py",
        }
        assert not (output.parent / "mlflow.db").exists()


def test_the_pipeline_against_a_server_that_dies_during_training(
    server: Callable[[], subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = server.uri  # type: ignore[attr-defined]
    process = server()
    there = TrackingSettings(uri=uri)
    write_studies(tmp_path / "in", patients=20, seed=0, smallest=96, full_size=0, workers=1, progress=lambda *_: None)
    ingested = runs.ingest(IngestSettings(input=tmp_path / "in", output=tmp_path / "data", tracking=there))

    spent: list[float] = []
    log = MlflowRun.metrics

    def timed(self: Any, *values: Any, **named: Any) -> None:
        began = time.perf_counter()
        log(self, *values, **named)
        spent.append(time.perf_counter() - began)

    ended: list[float] = []

    def progress(done: int, total: int, label: str) -> None:
        if label == "training" and done == 4 and process.poll() is None:
            stop(process)
        if label == "training" and done == total:
            ended.append(time.monotonic())

    monkeypatch.setattr(MlflowRun, "metrics", timed)
    few = {"max_steps": 16, "batch_size": 4, "accumulation": 1, "eval_every": 16}
    places = {"data": tmp_path / "data", "output": tmp_path / "train", "tracking": there.model_dump()}
    recipe = train_settings(tmp_path, **few, **places)
    trained = runs.train(recipe, progress=progress)
    assert time.monotonic() - ended[0] < 30
    assert sum(spent) <= 0.05 * 16 * trained.facts["seconds_per_step"]
    assert list(tmp_path.glob(".mlflow-unsent-*"))

    server()
    generated = runs.generate(
        GenerateSettings(
            input=tmp_path / "data",
            output=tmp_path / "reports",
            adapter=trained.result.adapter,
            max_new_tokens=8,
            tracking=there,
        )
    )
    assert not list(tmp_path.glob(".mlflow-unsent-*"))
    scored = runs.evaluate(
        EvaluateSettings(
            predictions=tmp_path / "reports",
            references=tmp_path / "data",
            output=tmp_path / "scores",
            radgraph="tiny",
            bootstrap_samples=20,
            tracking=there,
        )
    )
    client = MlflowClient(uri)
    curve = [point.step for point in client.get_metric_history(trained.run_id, "loss")]
    assert curve == list(range(1, 17))
    assert client.get_run(trained.run_id).info.status == "FINISHED"
    assert "adapter" in {item.path for item in client.list_artifacts(trained.run_id)}
    scores = client.get_run(scored.run_id).data.tags
    assert scores["cxrreport.predictions_run"] == generated.run_id
    assert scores["mlflow.parentRunId"] == trained.run_id
    assert client.get_run(generated.run_id).data.tags["cxrreport.model_run"] == trained.run_id
    manifest = client.get_run(trained.run_id).data.tags["digest.training.manifest"]
    assert manifest == client.get_run(ingested.run_id).data.tags["digest.output.manifest"]
