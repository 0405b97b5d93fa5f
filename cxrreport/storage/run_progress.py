"""How far a command is: `progress.json` in its output folder while it runs, for `cxrreport status`."""

from __future__ import annotations

import os
import platform
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cxrreport.errors import OutputError
from cxrreport.records import Progress
from cxrreport.storage.atomic_files import write_json
from cxrreport.storage.decoding import parse_json

PROGRESS = "progress.json"
_SECONDS = 5.0


class RecordedProgress:
    """Passes progress on, and writes it into an output folder every few seconds.

    It may be called by several threads. A disk that is full does not end the command here.

    Args:
        command: whose state file the folder holds once it is open; nothing is written before.
        folder: output folder.
        progress: the receiver.
    """

    def __init__(self, command: str, folder: Path, progress: Progress) -> None:
        self._state, self._file, self._progress = folder / f"{command}.json", folder / PROGRESS, progress
        self._stages: dict[str, dict[str, Any]] = {}
        self._written = 0.0
        self._lock = threading.Lock()

    def __call__(self, done: int, total: int, label: str) -> None:
        """See `records.Progress`."""
        self._progress(done, total, label)
        with self._lock:
            now = time.time()
            stage = self._stages.setdefault(label, {"begun": now, "done_before": done})
            stage |= {"done": done, "total": total, "updated": now}
            if time.monotonic() - self._written >= _SECONDS and self._state.is_file():
                self._written = time.monotonic()
                with suppress(OSError, OutputError):
                    write_json(self._file, {"process": os.getpid(), "machine": platform.node(), "stages": self._stages})


def read_progress(folder: Path) -> dict[str, Any]:
    """The content of `progress.json`; empty if there is none, or none that can be read."""
    with suppress(OSError, ValueError):
        found = parse_json((folder / PROGRESS).read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("stages"), dict):
            return found
    return {}
