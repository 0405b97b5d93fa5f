from __future__ import annotations

import pytest

from cxrreport.evaluation.clinical.readings import METRIC, reading_scores
from cxrreport.evaluation.metrics import Pairs
from cxrreport.evaluation.radgraph import NO_ENTITIES, Annotation, Entity

PRESENT, ABSENT = "Observation::definitely present", "Observation::definitely absent"


def graph(head: str, *modifiers: str, label: str = PRESENT) -> Annotation:
    """One observation after the observations that modify it."""
    words = [*modifiers, head]
    last = len(words) - 1
    entities = [Entity(word, label, place, place, (("modify", last),)) for place, word in enumerate(modifiers)]
    return Annotation(tuple(words), (*entities, Entity(head, label, last, last, ())))


def score(candidates: list[Annotation], references: list[Annotation]) -> dict[str, tuple[float, list[float]]]:
    names = [str(number) for number in range(len(references))]
    texts = {name: f"text {name}" for name in names}
    pairs = Pairs(
        references=texts,
        candidates={name: f"other {name}" for name in names},
        reference_graphs=dict(zip(names, references, strict=True)),
        candidate_graphs=dict(zip(names, candidates, strict=True)),
    )
    return {name: (one.value, one.values.tolist()) for name, one in reading_scores(pairs).items()}


def test_sides_are_compared_by_finding() -> None:
    references = [graph("effusion", "new", "left"), graph("atelectasis", "stable", "bilateral"), NO_ENTITIES]
    candidates = [graph("effusion", "unchanged", "left"), graph("atelectasis", "stable", "right"), NO_ENTITIES]
    found = score(candidates, references)
    assert found["laterality_f1"] == (pytest.approx(2 * 2 / (4 + 0 + 1)), [1.0, pytest.approx(2 / 3), 1.0])
    denied = graph("effusion", "left", label=ABSENT)
    assert score([denied], [denied])["laterality_f1"][1] == [1.0]
    assert METRIC.graphs and METRIC.conditions.keys() == {"findings", "laterality"}
