"""What a report states on the findings of CheXpert, read from its entity graph.

Every observation of the graph is read with the observations that modify it and the anatomy it is at, against the table
in `finding_words`. RadGraph's label decides whether it is present, uncertain or absent; words of the same group decide
on side and severity. The mapping is not validated against radiologists: see `docs/clinical.md` for what it was tested
on and for its limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from cxrreport.evaluation.clinical import vocabulary as words
from cxrreport.evaluation.clinical.vocabulary import Finding, Says
from cxrreport.evaluation.radgraph import Annotation, Entity

NOT_VALIDATED = "words on RadGraph entities, not validated against radiologists"
_MODIFY = "modify"
_LOCATED = "located_at"
_BEFORE = 5
"""Tokens before a denied observation among which a word that narrows the denial is looked for."""


class Presence(StrEnum):
    """What is said of a finding."""

    PRESENT = "present"
    UNCERTAIN = "uncertain"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """One place at which a report says something of a finding.

    Args:
        concept: the stem by which it is named, e.g. `congest` of Edema.
        sides: of `left` and `right`; empty where none is said.
        severity: 1 mild or small, 2 moderate, 3 severe or large; 0 where none is said.
        qualifiers: all other words on it that narrow it, lower case.
        implied: it follows from a statement on something wider (clear lungs).
        start: index of its first token.
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
    """What a whole report states of one finding: present before uncertain before absent, with the sides of those
    mentions together and the greatest of their severities.
    """

    presence: Presence
    sides: frozenset[str] = frozenset()
    severity: int = 0


Reading = Mapping[Finding, Stated]
"""The findings that a report says something of."""


def mentions(annotation: Annotation) -> tuple[Mention, ...]:
    """All statements on findings, in the order of the text."""
    return tuple(sorted(_mentions(annotation), key=lambda one: (one.start, one.finding)))


def reading(found: Iterable[Mention]) -> Reading:
    """The mentions of one report put together.

    No Finding is present where the report says something of a finding, and of none but Support Devices that it is
    present or uncertain; else it is absent, or not stated where the report says nothing of any finding.
    """
    by_finding: dict[Finding, list[Mention]] = {}
    for mention in found:
        by_finding.setdefault(mention.finding, []).append(mention)
    normal = by_finding.pop(Finding.NO_FINDING, None)
    stated = {finding: _stated(ones) for finding, ones in by_finding.items()}
    if stated or normal:
        ill = any(said.presence is not Presence.ABSENT for said in pathological(stated).values())
        stated[Finding.NO_FINDING] = Stated(Presence.ABSENT if ill else Presence.PRESENT)
    return {finding: stated[finding] for finding in Finding if finding in stated}


def pathological(stated: Reading) -> Reading:
    """Without Support Devices and No Finding."""
    healthy = (Finding.SUPPORT_DEVICES, Finding.NO_FINDING)
    return {finding: said for finding, said in stated.items() if finding not in healthy}


def sentence_starts(tokens: Iterable[str]) -> list[int]:
    """For each token, the index of the first token of its sentence. A stop between digits ends none."""
    listed = list(tokens)
    starts, start = [], 0
    for place, word in enumerate(listed):
        starts.append(start)
        decimal = place + 1 < len(listed) and listed[place - 1][-1:].isdigit() and listed[place + 1][:1].isdigit()
        if word[-1:] in (".", ";", "!", "?") and not (len(word) == 1 and decimal):
            start = place + 1
    return starts


def _stated(ones: list[Mention]) -> Stated:
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
        rest_only = not words.EXCEPT.isdisjoint(sentence)
        before = tokens[max(starts[entity.start], entity.start - _BEFORE) : entity.start]
        for mention in found:
            if mention.implied and rest_only:
                continue
            narrowed = words.NARROWING.intersection(before) if mention.presence is Presence.ABSENT else frozenset()
            yield replace(mention, start=entity.start, qualifiers=mention.qualifiers | narrowed)


@lru_cache(maxsize=1 << 16)
def _statements(own: str, what: str, whole: str, label: str) -> tuple[Mention, ...]:
    """What an observation states by its words, those with its modifiers, and those with its anatomy too. Reports repeat
    themselves: most groups of words are read once.
    """
    said = _said(label, whole)
    found = []
    for rule in words.RULES:
        match = rule.what.search(what)
        if (
            match is None
            or (rule.where is not None and not rule.where.search(whole))
            or (rule.unless is not None and rule.unless.search(whole))
            or (presence := _presence(rule.says, said)) is None
        ):
            continue
        found += [
            Mention(
                finding=finding,
                presence=presence,
                concept=match.group(),
                sides=frozenset() if finding in words.UNSIDED else _sides(whole),
                severity=0 if finding in words.UNGRADED or rule.says is Says.NORMAL else _severity(what),
                qualifiers=_qualifiers(whole, own),
                implied=rule.says in (Says.NORMAL, Says.DENIED),
            )
            for finding in rule.findings
        ]
    return tuple(found)


class _Graph:
    """The relations of an annotation, both ways."""

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
        """True for a word on another observation, which is read with that one."""
        targets = [one for one in self._modified.get(place, ()) if _observed(self._entities[one])]
        return bool(targets) and place not in self._closure([place], self._modifiers)

    def group(self, place: int) -> tuple[list[Entity], list[Entity]]:
        """The observations that modify an observation, and the anatomy of it and them."""
        about = self._closure([place], self._modifiers) - {place}
        observations = sorted(one for one in about if _observed(self._entities[one]))
        targets = {
            target
            for one in (place, *about)
            for target in (*self._located.get(one, ()), *self._modified.get(one, ()))
            if not _observed(self._entities[target])
        }
        # The size of a heart modifies it: what anatomy modifies belongs to it too, but not what else modifies that.
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


def _said(label: str, whole: str) -> Presence:
    # `Observation::definitely absent` of radgraph-xl, `OBS-DA` of radgraph.
    label = label.lower()
    if "absent" in label or label.endswith("-da") or words.GONE.search(whole):
        return Presence.ABSENT
    if "uncertain" in label or label.endswith("-u") or words.DOUBT.search(whole):
        return Presence.UNCERTAIN
    return Presence.PRESENT


def _presence(says: Says, label: Presence) -> Presence | None:
    """What the findings of a rule are when its observation is `label`; None: nothing is said of them."""
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
    # In the order of the text: patterns may run over neighbouring entities (upper limit).
    return " ".join(entity.words.lower() for entity in sorted(entities, key=lambda one: one.start))


def _sides(text: str) -> frozenset[str]:
    if words.BOTH_SIDES.search(text):
        return frozenset(("left", "right"))
    named = (("left", words.LEFT), ("right", words.RIGHT))
    return frozenset(side for side, pattern in named if pattern.search(text))


def _severity(text: str) -> int:
    return max((grade for grade, pattern in words.SEVERITIES.items() if pattern.search(text)), default=0)


def _qualifiers(text: str, own: str) -> frozenset[str]:
    known = (words.BOTH_SIDES, words.LEFT, words.RIGHT, words.NEUTRAL, *words.SEVERITIES.values())
    rest = set(re.findall(r"[a-z]+", text)) - set(re.findall(r"[a-z]+", own))
    return frozenset(word for word in rest if not any(pattern.match(word) for pattern in known))
