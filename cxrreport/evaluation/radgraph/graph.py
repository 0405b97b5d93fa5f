"""Entity graphs of reports, and the RadGraph F1 of two of them.

The three levels are the rewards of the `radgraph` package (Delbrouck et al. 2022, arXiv 2210.12186). The operations and
their order are those of the package, so values are equal to the last bit. Items of a report that are compared:

| level | an entity without relation | an entity with relations |
|---|---|---|
| simple | (words, label) | (words, label) |
| partial | (words, label) | (words, label, has a relation) |
| complete | (words, label) | (words, label, relation, words of its target) for each relation |

Two case rules exist under one version number: radgraph 0.1.18 from PyPI compares words as written, except in the last
column of `complete`; the head of its repository (July 2026) lower-cases everywhere.
"""

from __future__ import annotations

from collections.abc import Hashable, Set
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from cxrreport.records import EntityStatus


class Level(StrEnum):
    """What must agree for two entities to match; see the table of this module."""

    SIMPLE = "simple"
    PARTIAL = "partial"
    COMPLETE = "complete"


@dataclass(frozen=True, slots=True)
class Entity:
    """One entity of a report.

    Args:
        words: tokens of the entity, joined by one space.
        label: RadGraph label, for example `Observation::definitely absent`.
        start: index of the first token.
        end: index of the last token, inclusive.
        relations: kind and target (index into `Annotation.entities`) of each outgoing relation.
    """

    words: str
    label: str
    start: int
    end: int
    relations: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Annotation:
    """The tokens of a text and its entity graph."""

    tokens: tuple[str, ...]
    entities: tuple[Entity, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Precision, recall and F1 of one candidate, each in [0, 1]."""

    precision: float
    recall: float
    f1: float


NO_ENTITIES = Annotation((), ())
"""Graph of a text without entities."""
NO_AGREEMENT = Agreement(0.0, 0.0, 0.0)


def _key(entity: Entity, *, lower_case: bool) -> tuple[str, str]:
    """Words and label of an entity, as they are compared."""
    return (entity.words.lower() if lower_case else entity.words, entity.label)


def items(annotation: Annotation, level: Level, *, lower_case: bool) -> set[Hashable]:
    """The items that are compared at `level`; see the table of this module."""
    found: set[Hashable] = set()
    for entity in annotation.entities:
        key = _key(entity, lower_case=lower_case)
        if level is Level.SIMPLE or not entity.relations:
            found.add(key)
        elif level is Level.PARTIAL:
            found.add((*key, True))
        else:
            for kind, target in entity.relations:
                target_words = annotation.entities[target].words.lower()
                found.add((entity.words.lower(), entity.label, kind, target_words))
    return found


def agreement(candidate: Annotation, reference: Annotation, level: Level, *, lower_case: bool) -> Agreement:
    """Compare two graphs. If either side has no entities, the agreement is zero, as in the package.

    Args:
        candidate: graph of the candidate.
        reference: graph of the reference.
        level: what must agree.
        lower_case: case rule; see the docstring of this module.
    """
    return _agreement(items(candidate, level, lower_case=lower_case), items(reference, level, lower_case=lower_case))


def rexrank(candidate: Annotation, reference: Annotation, *, lower_case: bool) -> Agreement:
    """Mean of entity F1 and relation F1, each zero if a side has none (Yu et al. 2023, Patterns 4:100802).

    Precision and recall are averaged in the same way; ReXrank does not publish them. An entity is (words, label), a
    relation (entity, entity, kind). Unlike at level complete, the label of the target counts, and a report without
    relations has at most 0.5. ReXrank uses the model `radgraph` and compares words as written.
    """
    entity = partial(_key, lower_case=lower_case)

    def relations(annotation: Annotation) -> set[Hashable]:
        return {
            (entity(one), entity(annotation.entities[target]), kind)
            for one in annotation.entities
            for kind, target in one.relations
        }

    entities = (set(map(entity, side.entities)) for side in (candidate, reference))
    both = _agreement(*entities), _agreement(relations(candidate), relations(reference))
    return Agreement(*(sum(getattr(one, name) for one in both) / 2 for name in ("precision", "recall", "f1")))


def _agreement(candidate_items: Set[Hashable], reference_items: Set[Hashable]) -> Agreement:
    if not candidate_items or not reference_items:
        return NO_AGREEMENT
    common = len(candidate_items & reference_items)
    precision, recall = common / len(candidate_items), common / len(reference_items)
    f1 = 2 * precision * recall / (precision + recall) if common else 0.0
    return Agreement(precision, recall, f1)


def statuses(
    candidate: Annotation, reference: Annotation, *, lower_case: bool
) -> tuple[tuple[EntityStatus, ...], tuple[EntityStatus, ...]]:
    """For each entity whether the other report has it too, by words and label (level simple).

    Returns:
        statuses of the candidate's entities (matched or hallucinated) and of the reference's (matched or missed).
    """
    key = partial(_key, lower_case=lower_case)
    in_candidate, in_reference = (set(map(key, side.entities)) for side in (candidate, reference))
    matched, missed, hallucinated = EntityStatus
    return (
        tuple(matched if key(entity) in in_reference else hallucinated for entity in candidate.entities),
        tuple(matched if key(entity) in in_candidate else missed for entity in reference.entities),
    )
