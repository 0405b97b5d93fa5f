"""The same against a real `mlflow server` on loopback, and what happens when it dies."""

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

import pytest
from mlflow import MlflowClient

from cxrreport import tracking
from cxrreport.settings import IngestSettings, TrackingSettings

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts the server, again too, on one port and one database, and waits until it answers."""
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


def test_a_server_gets_everything_and_its_death_costs_nothing(
    server: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    uri = server.uri  # type: ignore[attr-defined]
    process = server()
    settings = IngestSettings(input=tmp_path / "in", output=tmp_path / "work" / "out")
    settings.output.mkdir(parents=True)
    picture = settings.output / "loss.png"
    picture.write_bytes(b"png")
    with tracking.start("ingest", settings, TrackingSettings(uri=uri), output=settings.output) as run:
        run.metrics({"loss": 1.0}, step=0)
        run.artifact(picture)
        time.sleep(5)
        client = MlflowClient(uri)
        assert client.get_run(run.run_id).data.metrics["loss"] == 1.0
        assert "loss.png" in {item.path for item in client.list_artifacts(run.run_id)}
        stop(process)
        began = time.monotonic()
        for step in range(1, 200):
            run.metrics({"loss": 1.0 / step}, step=step)
        run.artifact(Path(__file__))
        assert time.monotonic() - began < 1
        ended = time.monotonic()
    assert time.monotonic() - ended < 30
    server()
    assert tracking.sync(settings.output.parent, uri) == 1
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run.run_id, "loss")] == list(range(200))
    assert {item.path for item in client.list_artifacts(run.run_id)} == {
        "loss.png",
        "settings.json",
        "test_tracking_server.py",
    }
    assert not (settings.output.parent / "mlflow.db").exists()
