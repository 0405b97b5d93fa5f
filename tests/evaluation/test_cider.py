from __future__ import annotations

import numpy as np
import pytest

from cxrreport.demo.phantoms.grammar import sample_annotated
from cxrreport.evaluation.metrics.cider import cider, tokens
from cxrreport.evaluation.statistics import PatientBootstrap

# Expected values were recorded with pycocoevalcap 1.2 (CiderScorer, n=4, sigma=6) on the tokens of these texts.
CANDIDATES = [
    "The heart is normal in size. No pleural effusion.",
    "Small left pleural effusion. No pneumothorax.",
    "Lungs are clear.",
    "",
    "no no no no pneumothorax",
]
REFERENCES = [
    "Heart size is normal. No pleural effusion or pneumothorax.",
    "Small left pleural effusion. There is no pneumothorax.",
    "The lungs are clear.",
    "No acute disease.",
    "No pneumothorax.",
]
EXPECTED = [2.9570356792948966, 4.9007733029344465, 5.89167223826323, 0.0, 1.607210527585926]


def reports(seed: int, count: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [sample_annotated(rng, templates="seen").text for _ in range(count)]


def test_values_are_those_of_pycocoevalcap() -> None:
    measure = cider(CANDIDATES, REFERENCES)
    assert measure.values == pytest.approx(EXPECTED, abs=1e-9)
    assert measure.value == pytest.approx(np.mean(EXPECTED))


def test_many_reports_agree_with_values_recorded_from_pycocoevalcap() -> None:
    candidates, references = [*reports(0, 60), "", "Clear.", "zzz"], [*reports(1, 60), "Clear.", "Clear.", "Lungs"]
    measure = cider(candidates, references)
    assert measure.value == pytest.approx(0.3470293405799719, abs=1e-12)
    some = [0.008818450132662088, 1.8502744607674434e-07, 1.0863884357400115, 0.0, 2.5, 0.0]
    assert measure.values[[0, 7, 33, 60, 61, 62]] == pytest.approx(some, abs=1e-12)
    assert np.square(measure.values).sum() == pytest.approx(35.453318237808304, abs=1e-9)


def test_a_resample_has_its_own_frequencies() -> None:
    candidates, references = reports(2, 40), reports(3, 40)
    measure = cider(candidates, references)
    chosen = np.random.default_rng(0).integers(0, 40, size=(20, 40))
    weights = np.stack([np.bincount(row, minlength=40) for row in chosen]).astype(float)
    expected = [cider([candidates[n] for n in row], [references[n] for n in row]).value for row in chosen]
    assert measure.weighted(weights) == pytest.approx(expected, abs=1e-12)
    assert not np.allclose(expected, weights @ measure.values / 40, atol=1e-3)
    found = PatientBootstrap([str(n) for n in range(40)], samples=50, seed=0).interval(measure)
    assert found.low < found.value and found.low < found.high


def test_perfect_and_empty() -> None:
    texts = reports(4, 10)
    assert cider(texts, texts).value == pytest.approx(10)
    assert cider([""] * 10, texts).value == 0
    assert cider(["Clear lungs."], ["Clear lungs."]).value == 0  # one study: every n-gram is in every reference


def test_tokens() -> None:
    assert tokens("No effusion, 2.5 cm.  ___ Ünïcödé!") == ["no", "effusion", "2.5", "cm", "ünïcödé"]
