"""Events of a run, written to disk before they are sent: a store that fails or hangs does not stop the command.

Events are appended to a file and sent in order by a thread. The file is removed when all are sent. Events that remain
after a kill or a failure of the store are sent by a later run, so sending an event twice must be harmless.

A kill or a full disk may leave a part of a line at the end of the file; it is cut off before more is appended. Lines
that are no events, for example after a failure of the disk, are moved to a file of their own.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import Timeout

from cxrreport.errors import TrackingError
from cxrreport.storage.atomic_files import atomic_path
from cxrreport.storage.decoding import parse_json
from cxrreport.storage.locks import lock_file, locked_file

logger = logging.getLogger(__name__)

Event = dict[str, Any]
"""JSON values to send, with their `kind`. Consecutive events of one kind are sent together."""
Send = Callable[[Sequence[Event]], None]
"""Sends events of one kind. Raises `RefusedEvent` if a retry is useless, and any other exception to be retried."""

PATIENCE = 10.0
"""Seconds that `close` waits for a store that does not respond."""
LIMIT = 25.0
"""Seconds that `close` waits for a store that responds, so that the process ends within half a minute."""
_GATHER = 0.5
"""Seconds that the thread collects events before it sends."""
_BATCH = 500
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


class RefusedEvent(Exception):
    """The store has refused an event for good; a retry is useless."""


class Spool:
    """The events of one run.

    Args:
        path: the file, locked by this process until `close`. Events that an earlier process left are sent first.
        send: sends events to the store; called in a thread.

    Raises:
        filelock.Timeout: another process holds the file.
    """

    def __init__(self, path: Path, send: Send) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = lock_file(path)
        self._send = send
        self._waiting = _read(path)
        self._file = path.open("ab", buffering=0)  # what a failed write leaves is in the file, not in a buffer
        self._changed = threading.Condition()
        self._closing = False
        self._failing = False
        self._warned = False
        self._unwritten = False
        self._thread = threading.Thread(target=self._send_all, name="spool", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Append the event to the file and return; the thread sends it.

        On a full disk, events are in memory only, and are lost if the process ends before they are sent.
        """
        with self._changed:
            self._write(json.dumps(event).encode() + b"\n")
            self._waiting.append(event)
            self._changed.notify_all()

    def _write(self, line: bytes) -> None:
        size = os.fstat(self._file.fileno()).st_size
        rest = line
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._file.truncate(size)
            if not self._unwritten:
                self._unwritten = True
                logger.warning(
                    "%s: cannot be written (%s); MLflow gets what is sent at once", self.path, error.strerror
                )

    def close(self) -> bool:
        """Wait until all is sent and remove the file; return False, and keep it, if the store is down or slow."""
        started = time.monotonic()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while self._waiting and time.monotonic() - started < (PATIENCE if self._failing else LIMIT):
                self._changed.wait(0.2)
            done = not self._waiting
            if done:
                self.path.unlink(missing_ok=True)
            self._file.close()
            self._lock.release()
        return done

    def _send_all(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                if not self._closing:
                    self._changed.wait_for(lambda: self._closing, timeout=_GATHER)
                batch = next(batches(self._waiting))
            try:
                self._send(batch)
            except RefusedEvent as error:
                logger.warning("MLflow refused %s of this run: %s", batch[0]["kind"], error)
            except Exception as error:
                self._fail(error)
                with self._changed:
                    self._changed.wait_for(lambda: self._file.closed, timeout=pause)
                    if self._file.closed:
                        return
                pause = min(2 * pause, _LONGEST_PAUSE if not self._closing else _FIRST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            with self._changed:
                if self._file.closed:  # closed meanwhile: the batch will be sent again, which is harmless
                    return
                del self._waiting[: len(batch)]
                self._failing = False
                self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failing = True
            self._changed.notify_all()
        if not self._warned:
            self._warned = True
            reason = str(error) if isinstance(error, TrackingError) else type(error).__name__
            logger.warning("MLflow does not respond (%s); the log is kept on disk meanwhile", reason)


def batches(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Split events, in order, into lists of one kind and at most 500."""
    start = 0
    while start < len(events):
        kind = events[start]["kind"]
        batch: list[Event] = []
        for event in islice(events, start, start + _BATCH):
            if event["kind"] != kind:
                break
            batch.append(event)
        yield batch
        start += len(batch)


def resend(path: Path, send: Send) -> int:
    """Send the events that a run has left, remove the file, and return the number of events; 0 if the run is active.

    Raises:
        Exception: raised by `send`; the file is kept.
    """
    try:
        with locked_file(path):
            events = _read(path)
            for batch in batches(events):
                try:
                    send(batch)
                except RefusedEvent as error:
                    logger.warning("MLflow refused %s of an earlier run: %s", batch[0]["kind"], error)
            path.unlink()
    except Timeout:
        return 0
    return len(events)


def _read(path: Path) -> list[Event]:
    """The events of a file, which is left with whole, valid lines only."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = content.splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):  # after a kill or on a full disk
        os.truncate(path, len(content) - len(lines.pop()))
    events = {line: event for line in lines if (event := _event(line)) is not None}
    if bad := [line for line in lines if line not in events]:
        aside = path.with_name(f"{path.name}.unreadable")
        with aside.open("ab") as file:
            file.writelines(bad)
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"".join(line for line in lines if line in events))
        logger.warning("%s: %d lines are no events of MLflow and were moved to %s", path, len(bad), aside.name)
    return [events[line] for line in lines if line in events]


def _event(line: bytes) -> Event | None:
    with suppress(ValueError):
        event = parse_json(line)
        if isinstance(event, dict) and isinstance(event.get("kind"), str):
            return event
    return None
