"""The validation that was best so far: its weights on disk, and whether it is time to stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cxrreport.errors import TrainingError
from cxrreport.storage.atomic_files import atomic_path

LOSS = "validation_loss"
SCORE = "validation_radgraph_f1"
"""Where a validation has it, the largest is best, of equals the one with the least loss; else the least loss is."""


class BestCheckpoint:
    """Keeps the weights of the best validation.

    Step and score stand in the file of the weights itself, so that they are never of two different steps; how many
    validations have passed since follows from the log. A run that goes on therefore knows what it knew.

    Args:
        path: of the weights.
        lines: of `log.jsonl`, up to the step that the run goes on from.
        patience: validations without a better one after which to stop; None: never.

    Raises:
        TrainingError: the file of an earlier run is damaged.
    """

    def __init__(self, path: Path, lines: Sequence[Mapping[str, float]], patience: int | None) -> None:
        self.path = path
        self._patience = patience
        self.metrics: dict[str, float] = {}
        self.step = 0
        """0 as long as there was no validation."""
        if path.exists():
            try:
                with safe_open(path, "pt") as file:
                    saved = {name: float(value) for name, value in file.metadata().items()}
            except (SafetensorError, OSError, ValueError, AttributeError) as error:
                raise TrainingError(f"{path}: damaged; remove it to go on without what was best so far") from error
            self.step = int(saved.pop("step"))
            self.metrics = saved
        self._since = sum(LOSS in line and line["step"] > self.step for line in lines)

    @property
    def exhausted(self) -> bool:
        """As many validations as `patience` says have passed without a better one."""
        return self._patience is not None and self._since >= self._patience

    def improves(self, metrics: Mapping[str, float], step: int) -> bool:
        """Compare one validation with the best so far, and count it where it is no better.

        Args:
            metrics: with `LOSS`, and `SCORE` where reports are scored.
            step: of the validation. A step up to that of the best is a repeated one, after a stop.
        """
        if not self.step or _rank(metrics) > _rank(self.metrics):
            return True
        self._since += step > self.step
        return False

    def keep(self, state: dict[str, torch.Tensor], metrics: Mapping[str, float], step: int, *, write: bool) -> None:
        """Remember a validation that is better, and its weights.

        Args:
            state: what is trained, by name.
            metrics: of the validation.
            step: of the validation.
            write: False in all processes but the first.

        Raises:
            OutputError: the disk is full or the file cannot be written; the best so far stays.
        """
        if write:
            facts = {"step": str(step)} | {name: repr(float(value)) for name, value in metrics.items()}
            with atomic_path(self.path) as temporary:
                save_file(state, temporary, metadata=facts)
        self.step, self.metrics, self._since = step, dict(metrics), 0


def _rank(metrics: Mapping[str, float]) -> tuple[float, float]:
    return metrics.get(SCORE, 0.0), -metrics[LOSS]
