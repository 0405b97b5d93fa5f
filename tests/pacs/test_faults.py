"""Faults: every study ends exactly once, or as a row with a reason. The figures are in docs/security-tests.md."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pacs import service_process
from pacs.conftest import Studies, radiographs, write_radiograph
from pacs.fake_web import fake_web
from pacs.faulty_proxy import Faults
from pacs.servers import Orthanc, needs_dcmtk, needs_orthanc, send
from pacs.service_process import listen_settings, running
from pydicom import dcmread
from pynetdicom import AE, build_context
from pynetdicom.dimse_primitives import C_STORE

from cxrreport.pacs.monitor import queue_status
from cxrreport.settings import ListenSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), needs_orthanc, needs_dcmtk]


def record(name: str, **figures: Any) -> None:
    """Append the figures of a test to the file that the environment names."""
    if path := os.environ.get("CXRREPORT_ATTACK_FIGURES"):
        with Path(path).open("a") as file:
            file.write(json.dumps({"test": name} | figures) + "\n")


def states(folder: Path) -> dict[str, int]:
    return {state: count for state, count in queue_status(folder)["studies"].items() if count}


def wait_for(folder: Path, wanted: dict[str, int], seconds: float) -> None:
    until = time.monotonic() + seconds
    while states(folder) != wanted:
        assert time.monotonic() < until, states(folder)
        time.sleep(0.2)


def one_report_each(archive: Orthanc, files: list[Path]) -> bool:
    studies = {str(dcmread(path, stop_before_pixels=True).StudyInstanceUID): 1 for path in files}
    return Counter(row["StudyInstanceUID"] for row in archive.instances("SR")) == studies


class Process:
    """The service in a process of its own, with one fixed text instead of a model."""

    def __init__(self, settings: ListenSettings, folder: Path) -> None:
        self._file = folder / "listen.json"
        self._file.write_text(settings.model_dump_json())
        self._log = (folder / "service.log").open("ab")

    def start(self) -> int:
        """Start it; returns the port of the receiver."""
        tests = str(Path(service_process.__file__).parents[1])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([tests, *sys.path])}
        command = [sys.executable, "-m", "pacs.service_process", str(self._file)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, env=environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline().split()
        assert line, "the service has ended"
        return int(line[0])

    def end(self, how: int) -> int:
        self.process.send_signal(how)
        code = self.process.wait(120)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def test_sigkill_at_random_moments(archive: Orthanc, tmp_path: Path) -> None:
    files = radiographs(tmp_path / "files", 30)
    archive.store(*files)
    rng, kills = random.Random(20), 20
    process = Process(listen_settings(tmp_path / "queue", archive.dicomweb, quiet_s=0.5, attempts=50), tmp_path)
    waiting, failed = list(files), 0
    before = set()
    for _ in range(kills):
        port = process.start()
        killer = threading.Timer(rng.uniform(0.1, 4), process.process.kill)
        killer.start()
        while waiting and process.process.poll() is None:
            if send(f"CXRREPORT@127.0.0.1:{port}", waiting[0])[0].returncode == 0:
                waiting.pop(0)
            else:
                failed += 1
        killer.join()
        process.end(signal.SIGKILL)
        if not waiting:  # more work for the next round: the modality sends a study again
            waiting = [rng.choice(files)]
        before.add(frozenset(states(tmp_path / "queue").items()))
    port = process.start()
    for file in waiting:
        assert send(f"CXRREPORT@127.0.0.1:{port}", file)[0].returncode == 0
    wait_for(tmp_path / "queue", {"sent": 30}, 300)
    assert process.end(signal.SIGTERM) == 0
    assert one_report_each(archive, files)
    record("sigkill", kills=kills, studies=30, sends_cut=failed, states_seen=len(before), other_result=0)


@pytest.mark.parametrize("mode", ["refuse", "full", "error", "nothing", "slow", "cut"])
def test_an_archive_that_fails_now_and_then(archive: Orthanc, tmp_path: Path, mode: str) -> None:
    files = radiographs(tmp_path / "files", 10)
    archive.store(*files)
    rng = random.Random(mode)
    faults = Faults(archive.http, lambda: mode if rng.random() < 0.25 else "pass")
    with fake_web(faults) as proxy:
        settings = listen_settings(
            tmp_path / "queue",
            {"url": f"{proxy.url}/dicom-web", "timeout_s": 1},
            attempts=60,
            backoff_s=0.02,
        )
        with running(settings) as service:
            assert all(done.returncode == 0 for done in send(service.node, *files))
            wait_for(tmp_path / "queue", {"sent": 10}, 600)
    assert one_report_each(archive, files)
    record(f"archive: {mode}", studies=10, requests=len(faults.modes), faults=faults.modes.count(mode), other_result=0)


def test_an_archive_that_only_fails_gives_rows_with_reasons(archive: Orthanc, tmp_path: Path) -> None:
    files = radiographs(tmp_path / "files", 6)
    archive.store(*files)
    for mode in ("refuse", "full", "nothing"):
        with fake_web(Faults(archive.http, lambda mode=mode: mode)) as proxy:  # type: ignore[misc]
            folder = tmp_path / mode
            with running(listen_settings(folder, f"{proxy.url}/dicom-web")) as service:
                send(service.node, *files)
                wait_for(folder, {"given up": 6}, 120)
    assert archive.instances("SR") == []
    record("archive that only fails", modes=3, studies=18, given_up=18)


def test_an_archive_that_is_killed(archive: Orthanc, tmp_path: Path) -> None:
    files = radiographs(tmp_path / "files", 20)
    archive.store(*files)
    rng = random.Random(4)
    with running(listen_settings(tmp_path / "queue", archive.dicomweb, attempts=100, backoff_s=0.1)) as service:
        for number, file in enumerate(files):
            send(service.node, file)
            if number % 4 == 3:
                time.sleep(rng.uniform(0, 1.5))
                archive.stop()
                time.sleep(rng.uniform(0, 1))
                archive.start()
        wait_for(tmp_path / "queue", {"sent": 20}, 300)
    assert one_report_each(archive, files)
    record("archive killed", kills=5, studies=20, other_result=0)


def test_a_network_that_is_cut_within_an_instance(archive: Orthanc, tmp_path: Path) -> None:
    files = radiographs(tmp_path / "files", 20)
    archive.store(*files)
    rng, cut = random.Random(8), 0
    with running(listen_settings(tmp_path / "queue", archive.dicomweb)) as service:
        for file in files:
            with cutting_proxy(service.port, rng.randint(1, file.stat().st_size + 400)) as port:
                cut += send(f"CXRREPORT@127.0.0.1:{port}", file)[0].returncode != 0
        assert all(done.returncode == 0 for done in send(service.node, *files))
        wait_for(tmp_path / "queue", {"sent": 20}, 120)
    assert one_report_each(archive, files)
    record("network cut", connections=20, cut=cut, other_result=0)


@contextmanager
def cutting_proxy(port: int, after: int) -> Iterator[int]:
    """Forwards one connection, and closes it after some bytes."""
    listening = socket.create_server(("127.0.0.1", 0))

    def forward() -> None:
        client, _ = listening.accept()
        server = socket.create_connection(("127.0.0.1", port))

        def back() -> None:
            try:
                while data := server.recv(4096):
                    client.sendall(data)
            except OSError:
                pass

        answers = threading.Thread(target=back)
        answers.start()
        left = after
        try:
            while left > 0 and (data := client.recv(min(left, 4096))):
                server.sendall(data)
                left -= len(data)
        except OSError:
            pass
        for one in (server, client):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        answers.join()

    thread = threading.Thread(target=forward)
    thread.start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        thread.join(30)
        listening.close()


def test_mutated_instances(archive: Orthanc, studies: Studies, tmp_path: Path) -> None:
    """500 instances with random damage: each is refused with a status, or its study ends with a report or a reason."""
    rng, answers = random.Random(500), Counter[str]()
    sources = [path for path in studies.files if dcmread(path, stop_before_pixels=True).Modality in ("DX", "CR")]
    settings = listen_settings(tmp_path / "queue", archive.dicomweb, unknown_study="send", quiet_s=0.1)
    with running(settings) as service:
        for number in range(500):
            path = sources[number % len(sources)]
            content = path.read_bytes()
            start = 144 + int.from_bytes(content[140:144], "little")
            header = dcmread(path, stop_before_pixels=True)
            data = bytearray(content[start:])
            unique = f"{number:03d}".encode()
            for uid in (header.StudyInstanceUID, header.SOPInstanceUID):
                data = data.replace(uid.encode(), uid.encode()[:-3] + unique)
            for _ in range(rng.choice((1, 4, 16))):
                kind, place = rng.random(), rng.randrange(len(data))
                if kind < 0.6:
                    data[place] = rng.randrange(256)
                elif kind < 0.8:
                    del data[place : place + rng.randint(1, 64)]
                else:
                    data[place:place] = rng.randbytes(rng.randint(1, 64))
            answers[store_raw(service.port, header, bytes(data[: len(data) // 2 * 2]))] += 1
        until = time.monotonic() + 1200
        waiting = {"received", "quiet", "generated", "failed"}
        while waiting & states(tmp_path / "queue").keys():
            assert time.monotonic() < until, states(tmp_path / "queue")
            time.sleep(0.5)
        write_radiograph(tmp_path / "good.dcm", 1)
        assert send(service.node, tmp_path / "good.dcm")[0].returncode == 0
    status = queue_status(tmp_path / "queue")
    assert sum(answers.values()) == 500
    assert answers["no answer"] == 0
    counts = {state: count for state, count in status["studies"].items() if count}
    record("mutated", instances=500, answers=answers, studies=counts, reasons=status["reasons"])


def store_raw(port: int, header: Any, data: bytes) -> str:
    """The status of a C-STORE of these bytes, as they are."""
    syntax = header.file_meta.TransferSyntaxUID
    association = AE("STORESCU").associate(
        "127.0.0.1", port, [build_context(header.SOPClassUID, syntax)], ae_title="CXRREPORT"
    )
    assert association.is_established
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        time.sleep(0.001)
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    request.DataSet = BytesIO(data)
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    association.release()
    return "no answer" if answer is None else f"{answer.Status:04X}"


def test_a_thousand_associations(tmp_path: Path) -> None:
    import psutil
    from pacs.test_receive import _association_request, node, receiving, wait_until

    write_radiograph(tmp_path / "1.dcm", 1)
    with receiving(limits={"associations": 20}) as (receiver, _, _):
        request, process = _association_request(), psutil.Process()
        assert send(node(receiver), tmp_path / "1.dcm")[0].returncode == 0
        threads, handles, memory = threading.active_count(), process.num_fds(), process.memory_info().rss
        answers = Counter[str]()
        for _ in range(40):  # 25 at a time: more than it takes
            held = [socket.create_connection(("127.0.0.1", receiver.port)) for _ in range(25)]
            for one in held:
                one.settimeout(30)
                one.sendall(request)
            for one in held:
                answers[{b"\x02": "accepted", b"\x03": "rejected"}.get(one.recv(1), "closed")] += 1
                one.close()
        wait_until(lambda: receiver.associations() == 0, 60)
        time.sleep(1)
        grown = (process.memory_info().rss - memory) >> 20
        assert threading.active_count() <= threads + 2
        assert process.num_fds() <= handles + 2
        assert send(node(receiver), tmp_path / "1.dcm")[0].returncode == 0
    record("associations", connections=1000, answers=answers, memory_mb=grown)
