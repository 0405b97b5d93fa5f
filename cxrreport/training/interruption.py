"""Stop at the end of a step when the user or the scheduler asks for it."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

_SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGUSR1") if (number := getattr(signal, name, None)) is not None]
"""Ctrl-C, the end of a job, and what SLURM sends before a time limit (`--signal=USR1@120`)."""


class StopRequest:
    """While the block runs, the first signal sets `asked`; a second one interrupts at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there only
            self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, _signal: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
