"""RadGraph F1 during training: built by `runs.train`, on the same studies every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxrreport.errors import WeightsError
from cxrreport.records import Report, Split, Study
from cxrreport.scoring import validation
from cxrreport.scoring.validation import ReportValidation, fixed_subset
from cxrreport.settings import CheckpointSettings, TrainSettings
from cxrreport.training.best_checkpoint import SCORE
from cxrreport.training.distributed import ProcessGroup


class Studies:
    """Of the validation split, all but two with a report; the test split must not be asked for."""

    digest = "d" * 64
    resolution = 224
    preprocessing: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, count: int = 12) -> None:
        self.asked: list[str] = []
        self.count = count

    def studies(self, split: Split | None = None) -> list[Study]:
        assert split is Split.VALIDATE
        texts = ["The heart is enlarged.", "Small left pleural effusion.", "There is no pneumothorax."]
        return [
            Study(
                study_id=f"s{i:02d}",
                patient_id=f"p{i:02d}",
                split=split,
                image_ids=(f"a{i}", f"b{i}"),
                report=Report() if i in (3, 4) else Report(findings=texts[i % 3], impression=texts[(i + 1) % 3]),
            )
            for i in range(self.count)
        ]

    def image(self, image_id: str) -> np.ndarray:
        self.asked.append(image_id)
        return np.zeros((224, 224), np.uint8)


@dataclass
class Written:
    text: str


class Scripted:
    """Replaces the engine: returns the reference report of a study, or an empty text."""

    says: Callable[[Report], str]

    def __init__(self, *_: Any, **options: Any) -> None:
        self.options = options

    def generate(self, requests: list[Any], done: Any = None) -> list[Written]:
        done(len(requests))
        return [Written(type(self).says(request.report)) for request in requests]


@dataclass
class Layout:
    settings: Any

    def parse(self, text: str) -> tuple[str, str]:
        findings, _, impression = text.partition("|")
        return findings, impression


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[ReportValidation, TrainSettings]]:
    monkeypatch.setattr(validation, "Engine", Scripted)

    def making(studies: Studies, first: bool = True, **values: Any) -> tuple[ReportValidation, TrainSettings]:
        settings = TrainSettings.model_validate(
            {
                "data": tmp_path,
                "output": tmp_path / "out",
                "checkpoint": CheckpointSettings(name="tiny"),
                "validation": {"radgraph": "tiny", "studies": 6} | values.pop("validation", {}),
            }
            | values
        )
        made = ReportValidation(settings, studies, first=first, progress=lambda *_: None)
        return made, settings

    return making


def test_the_subset_is_fixed_and_mostly_stays_when_the_data_grow() -> None:
    few = fixed_subset(Studies(12).studies(Split.VALIDATE), 6)
    assert few == fixed_subset(list(reversed(Studies(12).studies(Split.VALIDATE))), 6)
    more = fixed_subset(Studies(16).studies(Split.VALIDATE), 6)
    assert len({one.study_id for one in few} & {one.study_id for one in more}) >= 3
    assert [one.study_id for one in few] != sorted(one.study_id for one in few)


def test_perfect_reports_score_one_and_empty_ones_zero(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = Studies()
    made, settings = make(studies)
    assert len(made.studies) == 6
    assert not {study.study_id for study in made.studies} & {"s03", "s04"}
    layout = Layout(settings.prompt)
    scores = []
    for says in (
        lambda report: f"{report.findings}|{report.impression}",
        lambda report: f"{report.findings}|",
        lambda report: "",
        lambda report: "heart " * 5000,
    ):
        monkeypatch.setattr(Scripted, "says", staticmethod(says), raising=False)
        scores.append(made(None, layout, ProcessGroup())[SCORE])  # type: ignore[arg-type]
    assert scores[0] == 1.0
    assert 0.3 < scores[1] < 1.0
    assert scores[2:] == [0.0, 0.0]
    assert set(studies.asked) == {study.image_ids[0] for study in made.studies}  # one image, the best view
    assert made.conditions["level"] == "partial"
    assert made.conditions["studies"] == 6
    assert made.conditions["synthetic"] is True
    assert len(made.conditions["weights_sha256"]) == 64


def test_only_the_sections_that_are_trained_count(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, settings = make(Studies(), prompt={"sections": ["impression"], "max_images": 2})
    monkeypatch.setattr(Scripted, "says", staticmethod(lambda report: f"nonsense|{report.impression}"), raising=False)
    assert made(None, Layout(settings.prompt), ProcessGroup()) == {SCORE: 1.0}  # type: ignore[arg-type]
    assert made.conditions["section"] == "impression"


def test_missing_weights_are_an_error_before_training_begins(make: Any, tmp_path: Path) -> None:
    missing = {"radgraph": "radgraph-xl", "weights": tmp_path / "nowhere"}
    with pytest.raises(WeightsError, match=r"validation\.radgraph: .*set validation.radgraph to none"):
        make(Studies(), validation=missing)
    made, _ = make(Studies(), first=False, validation=missing)  # another process only generates
    assert made.studies
