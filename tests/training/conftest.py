"""An ingest folder in memory, and settings for the random checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxrreport.errors import ManifestError
from cxrreport.inference.decoding import Engine, Request
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Report, Split, Study
from cxrreport.settings import TrainSettings
from cxrreport.training.distributed import ProcessGroup
from cxrreport.training.finetune import train

REPORTS = (
    Report(indication="cough", findings="The heart is enlarged. No pneumothorax.", impression="Cardiomegaly."),
    Report(findings="The lungs are clear.", impression="No acute process."),
    Report(indication="fever", impression="Small left pleural effusion."),
)


class MemoryManifest:
    """The brightness of an image encodes its report."""

    resolution = 224
    preprocessing = {"resize": "squash", "interpolation": "bilinear"}  # noqa: RUF012
    digest = "d" * 64

    def __init__(self, train: int = 11, validate: int = 3) -> None:
        self.sizes = {Split.TRAIN: train, Split.VALIDATE: validate, Split.TEST: 2}
        self.asked: list[str] = []
        self.gone: set[str] = set()
        self.reports = REPORTS

    def studies(self, split: Split | None = None) -> list[Study]:
        assert split is not None, "training asks for one split"
        return [
            Study(
                study_id=f"s{split.value}{i:03d}",
                patient_id=f"p{split.value}{i:03d}",
                split=split,
                image_ids=(f"{split.value}-{i}",),
                report=self.reports[i % len(self.reports)],
            )
            for i in range(self.sizes[split])
        ]

    def each_study(self, split: Split, **_: bool) -> Iterator[Study]:
        return iter(self.studies(split))

    def image(self, image_id: str) -> np.ndarray:
        self.asked.append(image_id)
        if image_id in self.gone:
            raise ManifestError(f"{image_id}: gone")
        number = int(image_id.split("-")[1])
        noise = np.random.default_rng(number).integers(0, 60, (224, 224))
        return (noise + 60 * (number % len(self.reports))).astype(np.uint8)


class Reports:
    """Generates the reports of the validation split, and keeps their ids and log-probabilities."""

    conditions: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.written: list[list[float]] = []

    def __call__(self, loaded: LoadedModel, layout: PromptLayout, processes: ProcessGroup) -> dict[str, float]:
        manifest = MemoryManifest()

        def write(studies: Sequence[Study]) -> list[list[float]]:
            requests = [
                Request(study_id=study.study_id, images=(manifest.image(study.image_ids[0]),), report=study.report)
                for study in studies
            ]
            engine = Engine(loaded, layout, batch_size=2, max_new_tokens=6)
            return [[*one.ids, one.mean_logprob] for one in engine.generate(requests)]

        found = processes.distribute(write, manifest.studies(Split.VALIDATE))
        self.written.append([number for numbers in found for number in numbers])
        return {}


@pytest.fixture
def reports() -> type[Reports]:
    return Reports


@pytest.fixture
def manifest() -> MemoryManifest:
    return MemoryManifest()


@pytest.fixture
def settings(checkpoint_folder: Path, tmp_path: Path) -> Callable[..., TrainSettings]:
    def make(**values: Any) -> TrainSettings:
        checkpoint = {"name": str(checkpoint_folder), "precision": "float32", "device": "cpu"}
        given = {
            "data": tmp_path / "ingest",
            "output": tmp_path / "train",
            "checkpoint": checkpoint | values.pop("checkpoint", {}),
            "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
            "learning_rate": 1e-2,
            "max_steps": 8,
            "batch_size": 2,
            "accumulation": 2,
            "eval_every": 4,
            "save_every": 2,
        }
        return TrainSettings.model_validate(given | values)

    return make


@pytest.fixture(scope="session")
def adapter(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter whose reports are of different lengths."""
    folder = tmp_path_factory.mktemp("start")
    values = {
        "data": folder / "ingest", "output": folder / "train", "learning_rate": 1e-2, "max_steps": 60,
        "checkpoint": {"name": str(checkpoint_folder), "precision": "float32", "device": "cpu"},
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.1}, "batch_size": 2, "accumulation": 2,
        "eval_every": 60,
    }  # fmt: skip
    settings = TrainSettings.model_validate(values)
    return train(settings, MemoryManifest(), log=lambda *_: None, progress=lambda *_: None).adapter
