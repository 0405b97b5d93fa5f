"""The parts of a training run, and its outcome."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from cxrreport.dataset import Manifest
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Progress
from cxrreport.settings import TrainSettings
from cxrreport.training.best_checkpoint import BestCheckpoint
from cxrreport.training.distributed import ProcessGroup
from cxrreport.training.samples import SplitSamples
from cxrreport.training.step_log import Log
from cxrreport.training.vision_features import VisionFeatures
from cxrreport.versions import installed


class Validator(Protocol):
    """Adds metrics to the validation loss; with `best_checkpoint.SCORE` among them, it selects the best step."""

    @property
    def conditions(self) -> Mapping[str, Any]:
        """What the metrics depend on, as JSON values."""

    def __call__(self, loaded: LoadedModel, layout: PromptLayout, processes: ProcessGroup) -> dict[str, float]:
        """The metrics of a model in evaluation mode; called in all processes, and equal in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The outcome of `train`.

    Args:
        adapter: folder of the adapter, or of the whole checkpoint after full fine-tuning.
        steps: optimiser steps of the run.
        planned_steps: optimiser steps without early stopping.
        best_step: step of the weights in `adapter`: the best validation, or the last step without validation; 0 for the
            adapter that training on the metric started from.
        resumed_at: step that this call resumed from; 0 for a new run.
        loss: mean over the last tenth of the steps, in nats per token.
        validation: metrics of the best validation.
        seconds_per_step: median.
        peak_memory: peak resident size of the process, or peak allocation on the GPU, in bytes.
        samples: number of training samples.
        cut_reports: training samples whose report was longer than the limit.
        cut_prefixes: training samples whose indication was longer than the limit.
        without_text: images excluded because their report has none of the sections.
        trained_parameters: number of trainable parameters.
        adapted_modules: names of the layers with LoRA.
        synthetic: True if the checkpoint has only seen phantoms.
        stopped: why training on the metric was stopped before the last step; empty if it was not.
    """

    adapter: Path
    steps: int
    planned_steps: int
    best_step: int
    resumed_at: int
    loss: float
    validation: dict[str, float]
    seconds_per_step: float
    peak_memory: int
    samples: int
    cut_reports: int
    cut_prefixes: int
    without_text: int
    trained_parameters: int
    adapted_modules: tuple[str, ...]
    synthetic: bool
    stopped: str = ""

    @classmethod
    def from_record(cls, folder: Path, record: Mapping[str, Any]) -> TrainResult:
        """The outcome that `train.json` of a finished run holds."""
        values = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        values |= {"adapter": folder / values["adapter"], "adapted_modules": tuple(values["adapted_modules"])}
        return cls(**values)

    def as_record(self) -> dict[str, Any]:
        """JSON values for `train.json`."""
        return asdict(self) | {"adapter": self.adapter.name, "adapted_modules": list(self.adapted_modules)}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run works with.

    Args:
        dtype: of the matrix products; float32 weights are computed in bfloat16 under autocast.
        modules: names of the layers with LoRA.
        training, validation: samples; `validation` is `None` if no study of that split has a report.
        training_features, validation_features: of the frozen vision tower; `None` if it is trained or sharded.
        steps: optimiser steps without early stopping.
        checkpoint: to resume from; `None` for a new run.
        resumed_at: step of the checkpoint.
    """

    settings: TrainSettings
    manifest: Manifest
    folder: Path
    processes: ProcessGroup
    loaded: LoadedModel
    dtype: torch.dtype
    modules: tuple[str, ...]
    layout: PromptLayout
    training: SplitSamples
    validation: SplitSamples | None
    training_features: VisionFeatures | None
    validation_features: VisionFeatures | None
    steps: int
    eval_every: int
    save_every: int
    checkpoint: Path | None
    resumed_at: int
    best: BestCheckpoint
    log: Log
    progress: Progress
    validate: Validator | None

    @property
    def unfinished(self) -> bool:
        """True if there are steps left."""
        return self.resumed_at < self.steps and not self.best.exhausted

    @property
    def conditions(self) -> dict[str, Any]:
        """Conditions of the validation metrics."""
        return dict(self.validate.conditions) if self.validate is not None else {}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the result depends on."""
    names = ("cxrreport", "torch", "transformers", "peft", "accelerate", "tokenizers")
    return {"python": platform.python_version()} | installed(names)
