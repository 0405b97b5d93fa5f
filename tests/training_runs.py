"""Training runs of the tests, and how they are stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cxrreport.settings import TrainSettings
from cxrreport.training.finetune import train
from cxrreport.training.run import TrainResult
from cxrreport.training.step_log import read_log


def run(settings: TrainSettings, manifest: Any, log: list[Any] | None = None, **options: Any) -> TrainResult:
    def keep(values: dict[str, float], step: int) -> None:
        if log is not None:
            log.append((step, dict(values)))

    return train(settings, manifest, log=keep, progress=lambda done, total, label: None, **options)


def losses(folder: Path) -> list[tuple[float, float]]:
    lines = read_log(folder / "log.jsonl")
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


class Scores:
    """Replaces RadGraph: returns the given scores in order."""

    conditions = {"radgraph": "none"}  # noqa: RUF012

    def __init__(self, values: list[float]) -> None:
        self.values = list(values)

    def __call__(self, loaded: Any, layout: Any, processes: Any) -> dict[str, float]:
        assert not loaded.model.training
        return {"validation_radgraph_f1": self.values.pop(0)}


class StoppedError(Exception):
    pass


def stop_at(at: int) -> Callable[[dict[str, float], int], None]:
    def log(values: dict[str, float], step: int) -> None:
        if step == at and "loss" in values:
            raise StoppedError

    return log
