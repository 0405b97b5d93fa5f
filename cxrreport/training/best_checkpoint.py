"""The best validation so far: its weights on disk, and early stopping."""

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
"""If present, the highest score is best, and ties are broken by the lowest loss; otherwise the lowest loss is best."""


class BestCheckpoint:
    """Keeps the weights of the best validation.

    Step and score are metadata of the weights file, so they always belong together. The number of validations since
    then follows from the log, so a resumed run has the same state.

    Args:
        path: weights file.
        lines: of `log.jsonl`, up to the step that the run resumes from.
        patience: validations without a better one after which to stop, `None` for no limit.

    Raises:
        TrainingError: the file of an earlier run is damaged.
    """

    def __init__(self, path: Path, lines: Sequence[Mapping[str, float]], patience: int | None) -> None:
        self.path = path
        self._patience = patience
        self.metrics: dict[str, float] = {}
        self.step: int | None = None
        """`None` before the first validation; 0 for the weights that training started from."""
        if path.exists():
            try:
                with safe_open(path, "pt") as file:
                    saved = {name: float(value) for name, value in file.metadata().items()}
            except (SafetensorError, OSError, ValueError, AttributeError) as error:
                raise TrainingError(f"{path}: damaged; remove it to resume without it") from error
            self.step = int(saved.pop("step"))
            self.metrics = saved
        self._since = sum(LOSS in line and line["step"] > (self.step or 0) for line in lines)

    @property
    def exhausted(self) -> bool:
        """True after `patience` validations without improvement."""
        return self._patience is not None and self._since >= self._patience

    def improves(self, metrics: Mapping[str, float], step: int) -> bool:
        """True if a validation is better than the best so far; otherwise it is counted.

        Args:
            metrics: `LOSS`, and `SCORE` if reports are scored.
            step: of the validation; steps up to that of the best are repeated after a resume and not counted.
        """
        if self.step is None or _rank(metrics) > _rank(self.metrics):
            return True
        self._since += step > self.step
        return False

    def keep(self, state: dict[str, torch.Tensor], metrics: Mapping[str, float], step: int, *, write: bool) -> None:
        """Store a better validation and its weights.

        Args:
            state: trained weights by name.
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
