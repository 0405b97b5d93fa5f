"""The model server under 2,000 hostile requests: it stays up, within memory, and repeats nothing."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from attack import bombs
from attack.hostile_requests import JSON, Request, hostile, row

from cxrreport import serving
from cxrreport.demo.phantoms.dicom import example
from cxrreport.model.card import AdapterCard
from cxrreport.settings import PromptSettings, RegisterSettings, TrackingSettings

REQUESTS = int(os.environ.get("CXRREPORT_ATTACK_REQUESTS", "2000"))
CLIENTS = 12
MEMORY = 3 << 30
"""Allowance above the idle server, bytes: bodies in work, and decoders of 29 million pixels."""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, psutil.Process, Path]]:
    """Port, process and folder of a served model; its temporary folder is `temporary` there."""
    folder = tmp_path_factory.mktemp("server")
    tracking = TrackingSettings(uri=f"sqlite:///{folder / 'mlflow.db'}")
    adapter = shutil.copytree(next(demo.rglob("adapter")), folder / "adapter")
    card = AdapterCard.read(adapter)
    prompt = PromptSettings.model_validate({"views": "frontal+lateral", "prior": "report+image", "pool": 2})
    card.model_copy(update={"prompt": prompt}).write(adapter)  # the model reads all that a request can bring
    served = serving.register(RegisterSettings(adapter=adapter, max_new_tokens=6, tracking=tracking))
    for name in ("root", "temporary"):
        (folder / name).mkdir()
    (folder / "root" / "link").symlink_to(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": served.tracking_uri,
        serving.ROOT: str(folder / "root"),
        "TMPDIR": str(folder / "temporary"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", served.uri, "--timeout", "300"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--env-manager", "local", "--workers", "1"]
    given: dict[str, Any] = {"env": environment, "cwd": folder, "start_new_session": True}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **given)
    try:
        for _ in range(600):
            try:
                if ask(port, "GET", "/health", b"", {})[0] == 200:
                    break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail((folder / "log").read_text()[-2000:])
        yield port, psutil.Process(process.pid), folder
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the server that this test began, and its workers
        process.wait(timeout=30)


def ask(port: int, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    """Status and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def ask_again(port: int, body: bytes, headers: dict[str, str], *, tries: int) -> tuple[int, str]:
    """As a client would that repeats what was answered with 503."""
    for _ in range(tries):
        status, text = ask(port, "POST", "/invocations", body, headers)
        if status != 503:
            break
        time.sleep(0.2)
    return status, text


def cut(port: int, body: bytes) -> None:
    """Send half of a request, or all of it, and leave before the answer."""
    head = f"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + body[: len(body) // (1 + len(body) % 2)])


def memory(process: psutil.Process) -> int:
    """Resident memory of a process and those that it started, bytes."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


@pytest.mark.timeout(3600)
def test_hostile_requests(server: tuple[int, psutil.Process, Path], monkeypatch: pytest.MonkeyPatch, note: Any) -> None:
    port, process, folder = server
    monkeypatch.setattr(bombs, "SIDE", 5400)  # 29 million pixels, which the server allows
    good = row(example())
    status, expected = ask(port, "POST", "/invocations", good, JSON)
    assert status == 200, expected
    files = sorted((folder / "temporary").rglob("*"))
    idle = peak = memory(process)
    done = threading.Event()
    seen: Counter[str] = Counter()
    leaks: list[Any] = []
    wrong: list[Any] = []
    seconds: list[float] = []

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.1):
            peak = max(peak, memory(process))

    def send(number: int, request: Request) -> None:
        kind, body, headers = request
        status, text = 0, ""
        try:
            if kind == "cut connection":
                cut(port, body)
            else:
                status, text = ask_again(port, body, headers, tries=1 + number % 6)
        except OSError:  # refused before all of the body was read
            pass
        seen[f"{kind.partition(' ')[0]} {status}"] += 1
        if any(word in text for word in ("CANARY", "Traceback", str(folder))):
            leaks.append((kind, status, text[:300]))
        if number % 25 == 0:
            begun = time.monotonic()
            answer = ask_again(port, good, JSON, tries=1000)
            seconds.append(time.monotonic() - begun)
            if answer != (200, expected):
                wrong.append((answer[0], answer[1][:300]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        for one in [pool.submit(send, *each) for each in enumerate(hostile(REQUESTS, example(), seed=18))]:
            one.result()
    took = time.monotonic() - begun
    last = ask_again(port, good, JSON, tries=1000)
    done.set()
    watcher.join()
    note(
        requests=REQUESTS,
        seconds=round(took),
        answers=dict(sorted(seen.items())),
        idle_mib=idle >> 20,
        peak_mib=peak >> 20,
        after_mib=memory(process) >> 20,
        good=len(seconds),
        slowest_good_s=round(max(seconds), 1),
    )
    assert last == (200, expected)
    assert not leaks and not wrong, (leaks[:3], wrong[:3])
    assert peak - idle < MEMORY
    assert sorted((folder / "temporary").rglob("*")) == files
    assert "CANARY" not in (folder / "log").read_text(errors="replace")
