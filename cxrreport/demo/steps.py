"""Steps of a demo: their seconds and MLflow runs, and how their scores are rounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from cxrreport import runs
from cxrreport.records import Progress
from cxrreport.storage.output_folder import OutputFolder

R = TypeVar("R")


class Steps:
    """Seconds and MLflow run of each step; a step that an earlier call finished keeps its time."""

    def __init__(self, folder: OutputFolder, progress: Progress) -> None:
        self._folder = folder
        self._progress = progress
        self.seconds: dict[str, float] = dict(folder.record.get("seconds", {}))
        self.run_ids: dict[str, str] = {}

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Measure what the block does."""
        started = time.monotonic()
        yield
        if step not in self.seconds:
            self.seconds[step] = round(time.monotonic() - started, 1)
            self._folder.update(seconds=self.seconds)

    def run(self, step: str, command: Callable[..., runs.Summary[R]], *settings: Any) -> R:
        """Run a command, or take the result that it has already."""
        with self.timed(step):
            done = command(*settings, progress=self._progress)
        self.run_ids[step] = done.run_id
        return done.result


def rounded(interval: Any) -> dict[str, float]:
    """Value and ends of an interval for `summary.json`."""
    return {name: round(float(getattr(interval, name)), 4) for name in ("value", "low", "high")}
