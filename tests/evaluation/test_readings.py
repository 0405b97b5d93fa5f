from __future__ import annotations

import pytest

from cxrreport.evaluation.clinical.chexpert import mentions, reading
from cxrreport.evaluation.clinical.readings import METRIC, reading_scores
from cxrreport.evaluation.clinical.vocabulary import Finding
from cxrreport.evaluation.metrics import Pairs
from cxrreport.evaluation.radgraph import NO_ENTITIES, Annotation, Entity

PRESENT, ABSENT = "Observation::definitely present", "Observation::definitely absent"


def graph(head: str, *modifiers: str, label: str = PRESENT) -> Annotation:
    """One observation after the observations that modify it."""
    words = [*modifiers, head]
    last = len(words) - 1
    entities = [Entity(word, label, place, place, (("modify", last),)) for place, word in enumerate(modifiers)]
    return Annotation(tuple(words), (*entities, Entity(head, label, last, last, ())))


@pytest.mark.parametrize(
    ("annotation", "courses"),
    [
        (graph("effusion", "new", "small"), {"new"}),
        (graph("effusion", "increasing"), {"worse"}),
        (graph("effusion", "Decreased"), {"better"}),
        (graph("effusion", "unchanged", "left"), {"unchanged"}),
        (graph("effusion", "stable"), {"unchanged"}),
        (graph("effusion", "small"), set()),
        (graph("effusion", "new", label=ABSENT), set()),
        (graph("effusion", "resolved"), {"resolved"}),
        (graph("effusion", "resolving"), {"better"}),
    ],
)
def test_the_course_of_a_finding(annotation: Annotation, courses: set[str]) -> None:
    assert reading(mentions(annotation))[Finding.PLEURAL_EFFUSION].courses == courses


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


def test_courses_and_sides_are_compared_by_finding() -> None:
    references = [graph("effusion", "new", "left"), graph("atelectasis", "stable", "bilateral"), NO_ENTITIES]
    candidates = [graph("effusion", "unchanged", "left"), graph("atelectasis", "stable", "right"), NO_ENTITIES]
    found = score(candidates, references)
    assert found["temporal_f1"] == (pytest.approx(2 * 1 / (2 + 1 + 1)), [0.0, 1.0, 1.0])
    assert found["laterality_f1"] == (pytest.approx(2 * 2 / (4 + 0 + 1)), [1.0, pytest.approx(2 / 3), 1.0])
    # The new line is not the new effusion of the reference, which a list of words would take it for.
    assert score([graph("catheter", "new")], [graph("effusion", "new")])["temporal_f1"][0] == 0.0
    denied = graph("effusion", "left", label=ABSENT)
    assert score([denied], [denied])["laterality_f1"][1] == [1.0]
    assert METRIC.graphs and METRIC.conditions.keys() == {"findings", "temporal", "laterality"}
