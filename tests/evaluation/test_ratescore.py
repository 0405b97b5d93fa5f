from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from encoders import TEXTS, random_encoder

from cxrreport.errors import WeightsError
from cxrreport.evaluation.metrics import Pairs
from cxrreport.evaluation.metrics.ratescore import (
    AFFINITIES,
    KINDS,
    NEGATION,
    NOTHING,
    directed,
    ratescore_metric,
    spans,
)
from cxrreport.reports.sentences import sentences
from cxrreport.settings import EvaluateSettings

LABELS = ["O", *(f"{part}-{kind}" for kind in KINDS for part in "BI")]
CANDIDATES = [*TEXTS[1:], TEXTS[0]]
RECORDED = (0.984545, 0.977708, 0.916306, 0.930283, 0.932793, 0.968661)
"""Of RaTEScore 0.6.0 on the models of `weights` and these texts, with the sentences of this project."""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    labels = dict(enumerate(LABELS))
    random_encoder(tmp_path / "ratescore" / "entities", "DebertaV2", seed=2, id2label=labels)
    random_encoder(tmp_path / "ratescore" / "terms", "Bert", seed=3)
    return tmp_path


def score(weights: Path, candidates: list[str], references: list[str]) -> list[float]:
    studies = [str(number) for number in range(len(references))]
    pairs = Pairs(
        references=dict(zip(studies, references, strict=True)), candidates=dict(zip(studies, candidates, strict=True))
    )
    settings = EvaluateSettings(predictions="p", references="r", output="o", encoders=weights)
    metric = ratescore_metric(settings, weights / "cache.sqlite")
    found: list[float] = metric(pairs)["ratescore"].values.tolist()
    assert ratescore_metric(settings, weights / "cache.sqlite")(pairs)["ratescore"].values.tolist() == found
    return found


def package(monkeypatch: pytest.MonkeyPatch, weights: Path) -> Any:
    """The package's scorer, with the sentences of this project in place of those of medspacy."""
    medspacy = ModuleType("medspacy")
    monkeypatch.setitem(sys.modules, "medspacy", medspacy)
    medspacy.load = lambda **_: lambda text: SimpleNamespace(sents=sentences(text))  # type: ignore[attr-defined]
    stock = pytest.importorskip("RaTEScore")
    folder = weights / "ratescore"
    return stock.RaTEScore(bert_model=str(folder / "entities"), eval_model=str(folder / "terms"), use_gpu=False)


@pytest.mark.stock("RaTEScore", "transformers")
def test_scores_are_those_of_the_package(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = package(monkeypatch, weights).compute_score(CANDIDATES, list(TEXTS))
    assert score(weights, CANDIDATES, list(TEXTS)) == pytest.approx(expected, abs=1e-5)


def test_scores_are_those_recorded(weights: Path) -> None:
    found = score(weights, CANDIDATES, list(TEXTS))
    assert found == pytest.approx(RECORDED, abs=1e-3)
    assert len({round(one, 3) for one in found}) == len(found)


def test_a_report_without_entities_scores_a_half(weights: Path) -> None:
    assert score(weights, ["", "  "], [TEXTS[0], TEXTS[1]]) == [NOTHING, NOTHING]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("- O O -", []),
        ("- B-X O B-Y I-Y I-Y O -", [(1, 1, "X"), (3, 5, "Y")]),
        ("- B-X I-X B-Y O O", [(1, 2, "X"), (3, 3, "Y")]),
        ("- I-X O -", []),
        ("- B-X B-Y O O", [(1, 1, "X"), (2, 2, "Y")]),
        # The last token says O, so an entity before it ends; if it says I, the entity ends before the last token.
        ("- O B-X I-X I-X", [(2, 3, "X")]),
    ],
)
def test_entities_of_labels(labels: str, expected: list[tuple[int, int, str]]) -> None:
    assert spans(labels.split()) == expected


def test_similarities_are_weighed_by_kind_and_negation() -> None:
    one = torch.eye(2)
    other = torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    found = directed(one, other, ["ANATOMY", "DISEASE"], ["NON-DISEASE", "ANATOMY"])
    anatomy, disease = AFFINITIES[1][1], AFFINITIES[2][4]
    assert found == pytest.approx((anatomy * 1.0 + disease * 0.8 * NEGATION) / (anatomy + disease))


def test_other_labels_are_refused(weights: Path) -> None:
    random_encoder(weights / "ratescore" / "entities", "DebertaV2", id2label={0: "O", 1: "B-DRUG"})
    with pytest.raises(WeightsError, match="the labels DRUG are not those of Angelakeke/RaTE-NER-Deberta"):
        score(weights, [TEXTS[0]], [TEXTS[1]])
