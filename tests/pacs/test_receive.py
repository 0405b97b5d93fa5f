"""The storage SCP under attack: who may connect, what may be sent, and that it lives on."""

from __future__ import annotations

import random
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from pacs.conftest import write_radiograph
from pacs.servers import STORESCU, needs_dcmtk, send
from pacs.service_process import MODALITY

from cxrreport.pacs.receive import Receiver, Sender
from cxrreport.settings import ReceiveSettings, build


@contextmanager
def receiving(**values: object) -> Iterator[tuple[Receiver, list[bytes], list[str]]]:
    """A receiver with what it got and whom it refused."""
    got: list[bytes] = []
    refused: list[str] = []

    def store(content: bytes, sender: Sender) -> int:
        got.append(content)
        return 0

    settings = build(ReceiveSettings, {"port": 0, "peers": [MODALITY], "timeout_s": 3} | values, where="test")
    with Receiver(settings, store, lambda what, _: refused.append(what)) as receiver:
        yield receiver, got, refused


def node(receiver: Receiver) -> str:
    return f"CXRREPORT@127.0.0.1:{receiver.port}"


def wait_until(done: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.05)


@needs_dcmtk
def test_nobody_may_connect_unless_named(tmp_path: Path) -> None:
    write_radiograph(tmp_path / "1.dcm", 1)
    with receiving(peers=[]) as (receiver, got, refused):
        assert send(node(receiver), tmp_path / "1.dcm")[0].returncode != 0
        assert (got, refused) == ([], ["address"])
    elsewhere = {"ae_title": "STORESCU", "address": "192.0.2.1"}
    both = [elsewhere, {"ae_title": "OTHER", "address": "127.0.0.1"}]
    with receiving(peers=both) as (receiver, got, refused):  # title and address are known, but not together
        assert send(node(receiver), tmp_path / "1.dcm")[0].returncode != 0
        assert (got, refused) == ([], ["peer"])


@needs_dcmtk
def test_it_answers_an_echo() -> None:
    with receiving() as (receiver, _, _):
        command = [str(STORESCU).replace("storescu", "echoscu"), "-aet", "STORESCU", "-aec", "CXRREPORT", "127.0.0.1"]
        subprocess.run([*command, str(receiver.port)], check=True, timeout=30)


@needs_dcmtk
def test_an_instance_beyond_the_limit_closes_the_connection(tmp_path: Path) -> None:
    write_radiograph(tmp_path / "small.dcm", 1)
    write_radiograph(tmp_path / "large.dcm", 2, RedPaletteColorLookupTableData=b"\0" * (4 << 20))
    with receiving(limits={"instance_mb": 1}) as (receiver, got, _):
        assert send(node(receiver), tmp_path / "large.dcm")[0].returncode != 0
        assert got == []
        assert send(node(receiver), tmp_path / "small.dcm")[0].returncode == 0
        assert len(got) == 1


def test_an_announced_length_is_not_read(tmp_path: Path) -> None:
    with receiving() as (receiver, _, _):
        before = psutil.Process().memory_info().rss
        with socket.create_connection(("127.0.0.1", receiver.port)) as one:
            one.sendall(b"\x01\x00" + struct.pack(">I", 0xFFFFFFFF))
            with pytest.raises(OSError):
                for _ in range(200):
                    one.sendall(b"\0" * (1 << 20))
        assert psutil.Process().memory_info().rss - before < 50 << 20


@needs_dcmtk
def test_malformed_data_units_do_not_stop_it(tmp_path: Path) -> None:
    write_radiograph(tmp_path / "1.dcm", 1)
    rng = random.Random(5)
    with receiving() as (receiver, got, _):
        request = _association_request()
        for number in range(200):
            damaged = bytearray(request)
            for _ in range(rng.randint(1, 8)):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            data = rng.randbytes(rng.randint(1, 300)) if number % 2 else bytes(damaged[: rng.randint(1, len(damaged))])
            with socket.create_connection(("127.0.0.1", receiver.port)) as one:
                one.sendall(data)
        wait_until(lambda: receiver.associations() == 0)
        assert send(node(receiver), tmp_path / "1.dcm")[0].returncode == 0
        assert len(got) == 1


def _association_request() -> bytes:
    """A request of an association for verification (PS3.8 9.3.2)."""

    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(content)) + content

    context = item(0x30, b"1.2.840.10008.1.1") + item(0x40, b"1.2.840.10008.1.2")
    body = struct.pack(">Hxx", 1) + b"CXRREPORT".ljust(16) + b"STORESCU".ljust(16) + b"\0" * 32
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, b"\x01\0\0\0" + context)
    body += item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3"))
    return struct.pack(">BxI", 1, len(body)) + body


@needs_dcmtk
def test_many_associations_leave_nothing_behind(tmp_path: Path) -> None:
    write_radiograph(tmp_path / "1.dcm", 1)
    with receiving(limits={"associations": 5}) as (receiver, _, refused):
        send(node(receiver), tmp_path / "1.dcm")
        wait_until(lambda: receiver.associations() == 0)
        threads, handles = threading.active_count(), psutil.Process().num_fds()
        request, accepted = _association_request(), 0
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", receiver.port)) as one:
                one.settimeout(10)
                one.sendall(request)
                accepted += one.recv(1) == b"\x02"
                one.sendall(b"\x05\0\0\0\0\x04\0\0\0\0")  # release
        held = [socket.create_connection(("127.0.0.1", receiver.port)) for _ in range(20)]
        for one in held:
            one.settimeout(10)
            one.sendall(request)
        answers = b"".join(one.recv(1) for one in held)  # none is closed before all are answered
        for one in held:
            one.close()
        wait_until(lambda: receiver.associations() == 0)
        time.sleep(0.5)
        assert accepted > 90  # one whose predecessor was still closing may be refused
        assert b"\x03" in answers
        assert threading.active_count() <= threads + 2
        assert psutil.Process().num_fds() <= handles + 2
        assert "association" in refused
        assert send(node(receiver), tmp_path / "1.dcm")[0].returncode == 0
