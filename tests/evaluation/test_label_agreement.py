from __future__ import annotations

import math

import pytest

from cxrreport.errors import ScoreError
from cxrreport.evaluation.metrics import Pairs
from cxrreport.evaluation.metrics.label_agreement import Counts, finding_scorer, finding_scores

REFERENCE = {"1": {("effusion", "left")}, "2": {("effusion", "left"), ("tube", "")}, "3": set()}
CANDIDATE = {"1": {("effusion", "left")}, "2": {("effusion", "right")}, "3": {("tube", "")}}


def test_micro_and_per_finding() -> None:
    scores = finding_scores(REFERENCE, CANDIDATE, group=lambda label: label[0])
    assert scores.total == Counts(1, 2, 2)
    assert scores.f1 == scores.measure.value == pytest.approx(2 / 6)
    assert scores.by_finding == {"effusion": Counts(1, 1, 1), "tube": Counts(0, 1, 1)}
    assert scores.by_finding["effusion"].f1 == 0.5
    assert scores.measure.values.tolist() == [1.0, 0.0, 0.0]


def test_labels_are_counted_as_they_are_without_a_group() -> None:
    assert finding_scores(REFERENCE, CANDIDATE).by_finding[("effusion", "left")] == Counts(1, 0, 1)


def test_no_covariates_known() -> None:
    scores = finding_scores({"1": set()}, {"1": set()})
    assert math.isnan(scores.f1) and scores.by_finding == {} and scores.measure.values.tolist() == [1.0]


def test_order_of_the_candidate_does_not_matter() -> None:
    turned = finding_scores(REFERENCE, dict(reversed(CANDIDATE.items())))
    assert turned.measure.terms.tolist() == finding_scores(REFERENCE, CANDIDATE).measure.terms.tolist()


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        ({"1": set()}, "no candidate for studies 2, 3"),
        (CANDIDATE | {"9": set()}, "no reference for study 9"),
    ],
)
def test_other_studies(candidate: dict[str, set[object]], message: str) -> None:
    with pytest.raises(ScoreError, match=message):
        finding_scores(REFERENCE, candidate)
    with pytest.raises(ScoreError, match="no study"):
        finding_scores({}, {})


def test_scorer_reads_texts_and_takes_the_truth_where_it_is_known() -> None:
    def read(text: str) -> set[str]:
        return {word for word in ("effusion", "tube") if word in text}

    pairs = Pairs(references={"1": "tube", "2": "clear"}, candidates={"1": "tube", "2": "effusion"})
    assert finding_scorer(read)(pairs).value == pytest.approx(2 / 3)
    known = {"1": set(), "2": {"effusion"}, "7": set()}
    assert finding_scorer(read, known)(pairs).value == pytest.approx(2 / 3)
    with pytest.raises(ScoreError, match="study 2"):
        finding_scorer(read, {"1": set()})(pairs)
