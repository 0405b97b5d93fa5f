"""What can be seen of a service: audit log, state of the queue, health endpoint. Ids are pseudonyms in all of them."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cxrreport.errors import InputError, OutputError
from cxrreport.pacs.queue import WAITING, Queue, State
from cxrreport.storage.output_folder import is_locked

_KEY, _AUDIT = "audit.key", "audit-{}.jsonl"
_HOUR = 3600.0


class Audit:
    """The audit log: a line for each thing that was done, in a file for each month.

    Args:
        folder: of the queue. `audit.key` in it is the key of the pseudonyms.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._secret = _key(folder / _KEY)

    def pseudonym(self, uid: str) -> str:
        """A keyed hash of an id."""
        return hmac.new(self._secret, uid.encode(), hashlib.sha256).hexdigest()[:16]

    def patient(self, patient_id: str) -> str:
        """A keyed hash that tells patients apart."""
        return hmac.new(self._secret, b"patient\0" + patient_id.encode(), hashlib.sha256).hexdigest()

    def write(self, event: str, *, study: str = "", instance: str = "", **facts: str | int) -> None:
        """Add a line.

        Args:
            event: what was done.
            study: Study Instance UID; written as its pseudonym, like `instance`.
            instance: SOP Instance UID.
            facts: sender, outcome, reason.
        """
        now = time.gmtime()
        row: dict[str, str | int] = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", now), "event": event}
        row |= {name: self.pseudonym(uid) for name, uid in (("study", study), ("instance", instance)) if uid} | facts
        line = json.dumps(row) + "\n"
        path = self._folder / _AUDIT.format(time.strftime("%Y-%m", now))
        with self._lock, path.open("a", encoding="utf-8") as file:
            file.write(line)


def _key(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return bytes.fromhex(path.read_text())
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(32))
        file.flush()
        os.fsync(file.fileno())
    return bytes.fromhex(path.read_text())


def queue_status(folder: Path) -> dict[str, Any]:
    """The state of the queue in the output folder of `listen`, also while a service runs, as JSON values.

    Returns:
        `running`, `studies` by state, `waiting` (studies that have not ended), `reasons` and `refused` with counts,
        `ended_last_hour`, `oldest_waiting_s`, `instances`, `documents_sent`, `given_up` (pseudonym and reason of each,
        at most 100).

    Raises:
        InputError: there is no queue.
    """
    queue = Queue(folder, create=False)
    try:
        return {"running": is_locked(folder)} | _status(queue, Audit(folder))
    finally:
        queue.close()


def _status(queue: Queue, audit: Audit) -> dict[str, Any]:
    waiting = queue.in_state(*WAITING)
    dead = queue.in_state(State.GIVEN_UP)[:100]
    return {
        "studies": queue.counts(),
        "waiting": len(waiting),
        "reasons": queue.reasons(),
        "refused": queue.refusals(),
        "ended_last_hour": queue.ended_since(time.time() - _HOUR),
        "oldest_waiting_s": round(time.time() - min((one.received for one in waiting), default=time.time()), 1),
        **queue.totals(),
        "given_up": [{"study": audit.pseudonym(one.study), "reason": one.reason, "detail": one.detail} for one in dead],
    }


def requeue(folder: Path, pseudonym: str | None) -> int:
    """Let studies that were given up be tried again, also while a service runs; returns how many.

    Args:
        folder: output folder of `listen`.
        pseudonym: of one study, as `queue_status` shows it; `None` for all.

    Raises:
        InputError: there is no queue, or no such study in it.
    """
    queue, audit = Queue(folder, create=False), Audit(folder)
    try:
        if pseudonym is None:
            done = queue.requeue()
        else:
            given_up = queue.in_state(State.GIVEN_UP)
            found = next((one.study for one in given_up if audit.pseudonym(one.study) == pseudonym), None)
            if found is None:
                raise InputError(f"{pseudonym}: no study of this name was given up; `cxrreport status` lists them")
            done = queue.requeue(found)
        audit.write("requeued", studies=done)
        return done
    finally:
        queue.close()


class HealthServer:
    """`/healthz` and `/metrics` (Prometheus text) on this machine, within a `with` block.

    Args:
        port: TCP port; 0 for any.
        queue: the queue.
        healthy: whether the service works.
        gauges: further numbers by name.

    Raises:
        OutputError: the port cannot be listened at.
    """

    def __init__(
        self, port: int, queue: Queue, healthy: Callable[[], bool], gauges: Callable[[], Mapping[str, float]]
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                well = healthy()
                if self.path == "/healthz":
                    self._answer(200 if well else 503, "ok\n" if well else "a part of the service has stopped\n")
                elif self.path == "/metrics":
                    self._answer(200, metrics_text(queue, {"up": float(well), **gauges()}))
                else:
                    self._answer(404, "/healthz and /metrics\n")

            def _answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                """Log nothing: monitoring asks every few seconds."""

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise OutputError(f"health_port: {port} cannot be listened at ({error.strerror}); set another") from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="health", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def metrics_text(queue: Queue, gauges: Mapping[str, float]) -> str:
    """The state of a queue in the text format of Prometheus."""
    lines = ["# TYPE cxrreport_studies gauge"]
    lines += [f'cxrreport_studies{{state="{state}"}} {count}' for state, count in queue.counts().items()]
    lines.append("# TYPE cxrreport_reasons gauge")
    lines += [f'cxrreport_reasons{{reason="{reason}"}} {count}' for reason, count in queue.reasons().items()]
    lines.append("# TYPE cxrreport_refused_total counter")
    lines += [f'cxrreport_refused_total{{reason="{reason}"}} {count}' for reason, count in queue.refusals().items()]
    for name, count in queue.totals().items():
        lines += [f"# TYPE cxrreport_{name}_total counter", f"cxrreport_{name}_total {count}"]
    for name, value in gauges.items():
        lines += [f"# TYPE cxrreport_{name} gauge", f"cxrreport_{name} {value:g}"]
    return "\n".join(lines) + "\n"
