"""What a run has to say, on disk before it is sent: a store that dies, hangs or refuses costs the work nothing.

Events are appended to a file and sent by a thread, in order. When all are sent the file is removed. What is left, after
a kill or when the store did not come back, is sent the next time; sending an event twice has to be harmless.
"""

from __future__ import annotations

import fcntl
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

logger = logging.getLogger(__name__)

Event = dict[str, Any]
"""What to send, as JSON values; `kind` says what it is. Neighbours of one kind are handed over together."""
Send = Callable[[Sequence[Event]], None]
"""Sends events of one kind. Raises `RefusedEvent` for what will never be taken, anything else to be called again."""

PATIENCE = 10.0
"""Seconds that `close` waits for a store that does not answer."""
LIMIT = 25.0
"""Seconds that `close` waits for one that does: the process ends within half a minute of its work."""
_GATHER = 0.5
"""Seconds that the thread waits for more events before it sends."""
_BATCH = 500
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


class RefusedEvent(Exception):
    """The store has answered, and will not take this in any state: asking again is of no use."""


class Spool:
    """The events of one run, written and sent as they come.

    Args:
        path: the file, locked by this process until `close`. What an earlier process left in it is sent first.
        send: hands events to the store, called in a thread of its own.

    Raises:
        BlockingIOError: another process works with this file.
    """

    def __init__(self, path: Path, send: Send) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise
        self._send = send
        self._waiting = _read(self._file)
        self._changed = threading.Condition()
        self._closing = False
        self._failing = False
        self._said = False
        self._thread = threading.Thread(target=self._work, name="spool", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Write the event down and go on; it is sent soon."""
        with self._changed:
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()
            self._waiting.append(event)
            self._changed.notify_all()

    def close(self) -> bool:
        """Wait until all is sent, and remove the file; False where the store is dead or slow and the file stays."""
        began = time.monotonic()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while self._waiting and time.monotonic() - began < (PATIENCE if self._failing else LIMIT):
                self._changed.wait(0.2)
            done = not self._waiting
            if done:
                self.path.unlink(missing_ok=True)
            self._file.close()
        return done

    def _work(self) -> None:
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
                logger.warning("MLflow refuses %s of this run: %s", batch[0]["kind"], error)
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
                if self._file.closed:  # nobody waits any more; what has just been sent is sent again, which is harmless
                    return
                del self._waiting[: len(batch)]
                self._failing = False
                self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failing = True
            self._changed.notify_all()
        if not self._said:
            self._said = True
            logger.warning("MLflow does not answer (%s); the work goes on, and the log is kept", type(error).__name__)


def batches(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Cut events, in their order, into lists of one kind and at most 500."""
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
    """Send what a run has left behind, and remove the file; the number of events.

    Nothing is done, and 0 returned, where the run is at work.

    Raises:
        Exception: whatever `send` raises, and the file stays.
    """
    with path.open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        events = _read(file)
        for batch in batches(events):
            try:
                send(batch)
            except RefusedEvent as error:
                logger.warning("MLflow refuses %s of an earlier run: %s", batch[0]["kind"], error)
        path.unlink()
    return len(events)


def _read(file: TextIO) -> list[Event]:
    file.seek(0)
    return [json.loads(line) for line in file if line.endswith("\n")]  # a kill may have cut off the last line
