"""The file of unsent events after kills, full disks and damage."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cxrreport.tracking.mlflow_store import make_sender
from cxrreport.tracking.spool import Event, Spool, resend


class Store:
    """Collects what is sent."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, events: Sequence[Event]) -> None:
        self.events += events


def event(number: int) -> Event:
    return {"kind": "metrics", "value": number}


def lines(*numbers: int) -> bytes:
    return b"".join(json.dumps(event(number)).encode() + b"\n" for number in numbers)


DAMAGE = {
    "a torn last line": (lines(0, 1) + b'{"kind": "met', [0, 1], b""),
    "only a torn line": (b'{"kind"', [], b""),
    "two events in one line": (lines(0) + b'{"kind": "met' + lines(1, 2), [0, 2], b'{"kind": "met' + lines(1)),
    "no JSON": (lines(0) + b"\x00\xff\x00\n" + lines(1), [0, 1], b"\x00\xff\x00\n"),
    "JSON that is no event": (b"[]\n17\n{}\n" + lines(0), [0], b"[]\n17\n{}\n"),
    "an empty line": (b"\n" + lines(0), [0], b"\n"),
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("again", ["the next run of the command", "sync"])
def test_valid_events_are_sent_and_the_others_moved_aside(tmp_path: Path, name: str, again: str) -> None:
    content, whole, bad = DAMAGE[name]
    path, store = tmp_path / "events.jsonl", Store()
    path.write_bytes(content)
    if again == "sync":
        assert resend(path, store) == len(whole)
    else:
        spool = Spool(path, store)
        spool.put(event(9))
        assert path.read_bytes() == lines(*whole, 9)
        assert spool.close()
        whole = [*whole, 9]
    assert store.events == [event(number) for number in whole]
    assert not path.exists()
    aside = tmp_path / "events.jsonl.unreadable"
    assert (aside.read_bytes() if aside.exists() else b"") == bad


class FullDisk:
    """A file on a disk that takes a few more bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data: bytes) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written: int = self._file.write(data[: self._room])
        self._room -= written
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_a_full_disk_leaves_whole_lines_and_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, store = tmp_path / "events.jsonl", Store()

    def down(events: Sequence[Event]) -> None:
        raise ConnectionError

    spool = Spool(path, down)
    spool.put(event(0))
    spool._file = FullDisk(spool._file, 10)
    spool.put(event(1))
    spool.put(event(2))
    assert path.read_bytes() == lines(0)
    assert caplog.text.count("cannot be written") == 1
    spool._send = store
    assert spool.close()  # it was in memory
    assert store.events == [event(0), event(1), event(2)]


def test_events_that_lack_a_field_are_refused_and_the_others_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Client:
        sent: ClassVar[list[str]] = []

        def log_batch(self, run_id: str, metrics: Sequence[Any] = (), tags: Sequence[Any] = ()) -> None:
            self.sent += [one.key for one in [*metrics, *tags]]

        def set_terminated(self, run_id: str, status: str) -> None:
            raise AssertionError("not for an event without a status")

    whole = {"kind": "metrics", "run_id": "r", "value": 1.0, "time": 0, "step": 0}
    events = [
        {**whole, "name": "a"},
        {"kind": "metrics", "run_id": "r", "name": "b"},
        {**whole, "name": "c"},
        {"kind": "tags", "name": "d"},
        {"kind": "tags", "name": "e", "value": "1"},
        {"kind": "of a later version"},
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in events))
    assert resend(path, make_sender(Client(), "sqlite:///x.db")) == len(events)
    assert Client.sent == ["a", "c", "e"] and not path.exists()
    assert "1 of 3 lack a field" in caplog.text and "it lacks 'status'" in caplog.text
