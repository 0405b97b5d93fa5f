"""Entity graphs of reports, and the RadGraph F1 of two of them.

The three levels are the rewards of the `radgraph` package (Delbrouck et al. 2022, arXiv 2210.12186), the same
operations in the same order, so that values are equal to the last bit. What counts as one item of a report:

| level | an entity without relation | an entity with relations |
|---|---|---|
| simple | (words, label) | (words, label) |
| partial | (words, label) | (words, label, has a relation) |
| complete | (words, label) | (words, label, relation, words of its target) for each relation |

Two case rules are in use under one version number: radgraph 0.1.18 as on PyPI compares words as they are written,
except in the last column of `complete`; the repository's head (July 2026) lower-cases everywhere.
"""

from __future__ import annotations

from collections.abc import Hashable, Set
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """What must agree for two entities to match; see the module's table."""

    SIMPLE = "simple"
    PARTIAL = "partial"
    COMPLETE = "complete"


class Status(StrEnum):
    """Whether an entity is in both reports, only in the reference (missed) or only in the candidate (invented)."""

    MATCHED = "matched"
    MISSED = "missed"
    INVENTED = "invented"


@dataclass(frozen=True, slots=True)
class Entity:
    """One entity.

    Args:
        words: its tokens, joined by one space.
        label: e.g. `Observation::definitely absent`.
        start: index of its first token.
        end: index of its last token, included.
        relations: kind and index (into `Annotation.entities`) of each entity that this one points to.
    """

    words: str
    label: str
    start: int
    end: int
    relations: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Annotation:
    """A text as RadGraph split it, and its graph."""

    tokens: tuple[str, ...]
    entities: tuple[Entity, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Precision, recall and F1 of one candidate, each in [0, 1]."""

    precision: float
    recall: float
    f1: float


NO_ENTITIES = Annotation((), ())
"""The graph of a text in which nothing was found, or that is empty."""
NO_AGREEMENT = Agreement(0.0, 0.0, 0.0)


def items(annotation: Annotation, level: Level, *, lower_case: bool) -> set[Hashable]:
    """What is compared at `level`; see the module's table."""
    found: set[Hashable] = set()
    for entity in annotation.entities:
        words = entity.words.lower() if lower_case else entity.words
        if level is Level.SIMPLE or not entity.relations:
            found.add((words, entity.label))
        elif level is Level.PARTIAL:
            found.add((words, entity.label, True))
        else:
            for kind, target in entity.relations:
                aim = annotation.entities[target].words.lower()
                found.add((entity.words.lower(), entity.label, kind, aim))
    return found


def agreement(candidate: Annotation, reference: Annotation, level: Level, *, lower_case: bool) -> Agreement:
    """Compare two graphs. A side without entities gives zero, also where both have none, as in the package.

    Args:
        candidate: graph of what was written.
        reference: graph of what should have been.
        level: what must agree.
        lower_case: the case rule; see the module.
    """
    return _agreement(items(candidate, level, lower_case=lower_case), items(reference, level, lower_case=lower_case))


def rexrank(candidate: Annotation, reference: Annotation, *, lower_case: bool) -> Agreement:
    """The mean of entity F1 and relation F1, each zero where a side has none (Yu et al. 2023, Patterns 4:100802), and
    of their precisions and recalls, which ReXrank does not publish.

    An entity is (words, label), a relation (entity, entity, kind): unlike level complete, the label of its target
    counts, and a report without relations has at most 0.5. ReXrank computes it with the model `radgraph` and compares
    words as they are written.
    """

    def entity(one: Entity) -> tuple[str, str]:
        return (one.words.lower() if lower_case else one.words, one.label)

    def relations(annotation: Annotation) -> set[Hashable]:
        return {
            (entity(one), entity(annotation.entities[target]), kind)
            for one in annotation.entities
            for kind, target in one.relations
        }

    entities = ({entity(one) for one in side.entities} for side in (candidate, reference))
    both = _agreement(*entities), _agreement(relations(candidate), relations(reference))
    return Agreement(*(sum(getattr(one, name) for one in both) / 2 for name in ("precision", "recall", "f1")))


def _agreement(written: Set[Hashable], wanted: Set[Hashable]) -> Agreement:
    if not written or not wanted:
        return NO_AGREEMENT
    common = len(written & wanted)
    precision, recall = common / len(written), common / len(wanted)
    f1 = 2 * precision * recall / (precision + recall) if common else 0.0
    return Agreement(precision, recall, f1)


def statuses(
    candidate: Annotation, reference: Annotation, *, lower_case: bool
) -> tuple[tuple[Status, ...], tuple[Status, ...]]:
    """For each entity of both sides whether the other side has it, by words and label (level simple).

    Returns:
        statuses of the candidate's entities (matched or invented) and of the reference's (matched or missed).
    """

    def key(entity: Entity) -> tuple[str, str]:
        return (entity.words.lower() if lower_case else entity.words, entity.label)

    written = {key(entity) for entity in candidate.entities}
    wanted = {key(entity) for entity in reference.entities}
    return (
        tuple(Status.MATCHED if key(e) in wanted else Status.INVENTED for e in candidate.entities),
        tuple(Status.MATCHED if key(e) in written else Status.MISSED for e in reference.entities),
    )
