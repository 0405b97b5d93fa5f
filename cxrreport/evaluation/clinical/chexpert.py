"""Read the statements of a report on CheXpert's findings from its entity graph.

Every observation of the graph, with the observations that modify it and its anatomy, is matched against the rules in
`vocabulary`. RadGraph's label determines whether it is present, uncertain or absent; words of the same group determine
side and severity. The mapping is not validated against radiologists; `docs/clinical.md` describes tests and limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from cxrreport.evaluation.clinical import vocabulary
from cxrreport.evaluation.clinical.vocabulary import Finding, Says
from cxrreport.evaluation.radgraph import Annotation, Entity

NOT_VALIDATED = "words on RadGraph entities, not validated against radiologists"
_MODIFY = "modify"
_LOCATED = "located_at"
_BEFORE = 5
"""Number of tokens before a denied observation in which a narrowing word is searched."""


class Presence(StrEnum):
    """Statement on a finding."""

    PRESENT = "present"
    UNCERTAIN = "uncertain"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """One statement of a report on a finding.

    Args:
        concept: stem that names the finding, for example `congest` for Edema.
        sides: `left`, `right` or both; empty if not stated.
        severity: 1 for mild or small, 2 for moderate, 3 for severe or large, 0 if not stated.
        qualifiers: all other words that narrow the finding, lower case.
        implied: true if the statement follows from a wider one ("clear lungs").
        start: index of the first token.
    """

    finding: Finding
    presence: Presence
    concept: str
    sides: frozenset[str] = frozenset()
    severity: int = 0
    qualifiers: frozenset[str] = frozenset()
    implied: bool = False
    start: int = 0


@dataclass(frozen=True, slots=True)
class Stated:
    """The statement of a whole report on one finding.

    Present takes precedence over uncertain, and uncertain over absent. `sides` is the union of the sides of the
    mentions with this presence, `severity` their greatest severity.
    """

    presence: Presence
    sides: frozenset[str] = frozenset()
    severity: int = 0


Reading = Mapping[Finding, Stated]
"""The findings that a report states."""


def mentions(annotation: Annotation) -> tuple[Mention, ...]:
    """All statements on findings in the order of the text."""
    return tuple(sorted(_mentions(annotation), key=lambda one: (one.start, one.finding)))


def reading(found: Iterable[Mention]) -> Reading:
    """Combine the mentions of one report.

    No Finding is present if the report states any finding, and none but Support Devices as present or uncertain. It is
    absent otherwise, and not stated if the report states no finding.
    """
    by_finding: dict[Finding, list[Mention]] = {}
    for mention in found:
        by_finding.setdefault(mention.finding, []).append(mention)
    normal = by_finding.pop(Finding.NO_FINDING, None)
    stated = {finding: _combined(ones) for finding, ones in by_finding.items()}
    if stated or normal:
        abnormal = any(one.presence is not Presence.ABSENT for one in pathological(stated).values())
        stated[Finding.NO_FINDING] = Stated(Presence.ABSENT if abnormal else Presence.PRESENT)
    return {finding: stated[finding] for finding in Finding if finding in stated}


def pathological(stated: Reading) -> Reading:
    """The statements without Support Devices and No Finding."""
    healthy = (Finding.SUPPORT_DEVICES, Finding.NO_FINDING)
    return {finding: one for finding, one in stated.items() if finding not in healthy}


def sentence_starts(tokens: Iterable[str]) -> list[int]:
    """For each token, the index of the first token of its sentence; a full stop between digits does not end one."""
    listed = list(tokens)
    starts, start = [], 0
    for place, word in enumerate(listed):
        starts.append(start)
        decimal = place + 1 < len(listed) and listed[place - 1][-1:].isdigit() and listed[place + 1][:1].isdigit()
        if word[-1:] in (".", ";", "!", "?") and not (len(word) == 1 and decimal):
            start = place + 1
    return starts


def _combined(ones: list[Mention]) -> Stated:
    presence = next(kind for kind in Presence if any(one.presence is kind for one in ones))
    chosen = [one for one in ones if one.presence is presence]
    sides = frozenset[str]().union(*(one.sides for one in chosen))
    return Stated(presence, sides, max(one.severity for one in chosen))


def _mentions(annotation: Annotation) -> Iterator[Mention]:
    starts = sentence_starts(annotation.tokens)
    tokens = [token.lower() for token in annotation.tokens]
    graph = _Graph(annotation)
    for place, entity in enumerate(annotation.entities):
        if not _observed(entity) or graph.only_modifies(place):
            continue
        about, around = graph.group(place)
        found = _statements(
            entity.words.lower(), _joined([entity, *about]), _joined([entity, *about, *around]), entity.label
        )
        if not found:
            continue
        sentence = [token for token, start in zip(tokens, starts, strict=True) if start == starts[entity.start]]
        exception = not vocabulary.EXCEPT.isdisjoint(sentence)
        before = tokens[max(starts[entity.start], entity.start - _BEFORE) : entity.start]
        for mention in found:
            if mention.implied and exception:
                continue
            narrowed = vocabulary.NARROWING.intersection(before) if mention.presence is Presence.ABSENT else frozenset()
            yield replace(mention, start=entity.start, qualifiers=mention.qualifiers | narrowed)


@lru_cache(maxsize=1 << 16)
def _statements(own: str, what: str, whole: str, label: str) -> tuple[Mention, ...]:
    """The statements of one observation; cached, because reports repeat most groups of words.

    Args:
        own: words of the observation.
        what: these and the words of its modifiers.
        whole: these and the words of its anatomy.
        label: RadGraph label of the observation.
    """
    stated = _presence_of_label(label, whole)
    found = []
    for rule in vocabulary.RULES:
        match = rule.what.search(what)
        if (
            match is None
            or (rule.where is not None and not rule.where.search(whole))
            or (rule.unless is not None and rule.unless.search(whole))
            or (presence := _presence(rule.says, stated)) is None
        ):
            continue
        found += [
            Mention(
                finding=finding,
                presence=presence,
                concept=match.group(),
                sides=frozenset() if finding in vocabulary.UNSIDED else _sides(whole),
                severity=0 if finding in vocabulary.UNGRADED or rule.says is Says.NORMAL else _severity(what),
                qualifiers=_qualifiers(whole, own),
                implied=rule.says in (Says.NORMAL, Says.DENIED),
            )
            for finding in rule.findings
        ]
    return tuple(found)


class _Graph:
    """The relations of an annotation in both directions."""

    def __init__(self, annotation: Annotation) -> None:
        self._entities = annotation.entities
        self._modifiers: dict[int, list[int]] = {}
        self._modified: dict[int, list[int]] = {}
        self._located: dict[int, list[int]] = {}
        for place, entity in enumerate(annotation.entities):
            for kind, target in entity.relations:
                if kind == _MODIFY:
                    self._modifiers.setdefault(target, []).append(place)
                    self._modified.setdefault(place, []).append(target)
                elif kind == _LOCATED:
                    self._located.setdefault(place, []).append(target)

    def only_modifies(self, place: int) -> bool:
        """True for a modifier of another observation, which is read with that observation."""
        targets = [one for one in self._modified.get(place, ()) if _observed(self._entities[one])]
        return bool(targets) and place not in self._closure([place], self._modifiers)

    def group(self, place: int) -> tuple[list[Entity], list[Entity]]:
        """The observations that modify an observation, and the anatomy of all of them."""
        about = self._closure([place], self._modifiers) - {place}
        observations = sorted(one for one in about if _observed(self._entities[one]))
        targets = {
            target
            for one in (place, *about)
            for target in (*self._located.get(one, ()), *self._modified.get(one, ()))
            if not _observed(self._entities[target])
        }
        # "Size" modifies "heart": what anatomy modifies is included, but not its other modifiers.
        anatomy = (
            targets
            | self._closure(targets, self._modifiers)
            | self._closure(targets, self._modified)
            | {one for one in about if not _observed(self._entities[one])}
        )
        return [self._entities[one] for one in observations], [self._entities[one] for one in sorted(anatomy)]

    @staticmethod
    def _closure(places: Iterable[int], edges: Mapping[int, list[int]]) -> set[int]:
        reached: set[int] = set()
        waiting = list(places)
        while waiting:
            for one in edges.get(waiting.pop(), ()):
                if one not in reached:
                    reached.add(one)
                    waiting.append(one)
        return reached


def _observed(entity: Entity) -> bool:
    return entity.label.upper().startswith("OBS")


def _presence_of_label(label: str, whole: str) -> Presence:
    # `Observation::definitely absent` of radgraph-xl, `OBS-DA` of radgraph.
    label = label.lower()
    if "absent" in label or label.endswith("-da") or vocabulary.GONE.search(whole):
        return Presence.ABSENT
    if "uncertain" in label or label.endswith("-u") or vocabulary.DOUBT.search(whole):
        return Presence.UNCERTAIN
    return Presence.PRESENT


def _presence(says: Says, label: Presence) -> Presence | None:
    """Presence of the findings of a rule whose observation is `label`; `None` if the rule states nothing."""
    absent = label is Presence.ABSENT
    match says:
        case Says.PRESENT:
            return label
        case Says.DOUBTFUL:
            return Presence.ABSENT if absent else Presence.UNCERTAIN
        case Says.NORMAL:
            return {Presence.PRESENT: Presence.ABSENT, Presence.UNCERTAIN: Presence.UNCERTAIN}.get(label)
        case Says.DENIED:
            return Presence.ABSENT if absent else None
        case Says.NO_PROCESS:
            return Presence.PRESENT if absent else None


def _joined(entities: Iterable[Entity]) -> str:
    # In the order of the text, because a pattern may match neighbouring entities ("upper limit").
    return " ".join(entity.words.lower() for entity in sorted(entities, key=lambda one: one.start))


def _sides(text: str) -> frozenset[str]:
    if vocabulary.BOTH_SIDES.search(text):
        return frozenset(("left", "right"))
    named = (("left", vocabulary.LEFT), ("right", vocabulary.RIGHT))
    return frozenset(side for side, pattern in named if pattern.search(text))


def _severity(text: str) -> int:
    return max((grade for grade, pattern in vocabulary.SEVERITIES.items() if pattern.search(text)), default=0)


def _qualifiers(text: str, own: str) -> frozenset[str]:
    sides = (vocabulary.BOTH_SIDES, vocabulary.LEFT, vocabulary.RIGHT)
    known = (*sides, vocabulary.NEUTRAL, *vocabulary.SEVERITIES.values())
    rest = set(re.findall(r"[a-z]+", text)) - set(re.findall(r"[a-z]+", own))
    return frozenset(word for word in rest if not any(pattern.match(word) for pattern in known))
