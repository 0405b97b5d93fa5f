"""Read from the text of a report how each finding has changed since an earlier study.

A sentence states a change only if `reports.priors` finds a mention of a prior study in it, so that what `ingest`
removes and what is read here are the same. It is divided into segments that speak of their own findings, and the cues
of a segment apply to the findings that it names. `docs/clinical.md` describes the rules, their tests and their
limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from cxrreport.evaluation.clinical import vocabulary
from cxrreport.evaluation.clinical.change_words import (
    ABBREVIATIONS,
    AERATION,
    ANATOMY,
    CUES,
    GRADES,
    NAMES,
    PLACE_ONLY,
    WHOLE,
    Change,
)
from cxrreport.evaluation.clinical.vocabulary import Finding, Says
from cxrreport.reports.priors import CHANGE_WORDS, MENTION_WORDS, PLACES, STATES, mentions_prior, statement_on_prior
from cxrreport.reports.sentences import sentences

FindingChange = tuple[Finding, Change]
"""A finding and its change. `Finding.NO_FINDING` stands for the whole study of a report that names no finding."""

_RULES = tuple(
    rule
    for rule in vocabulary.RULES
    if rule.says in (Says.PRESENT, Says.DOUBTFUL)
    # "Large" and "heart" may be far apart in a text, so that only `ANATOMY` names the heart and the mediastinum.
    and (rule.where is None or not {Finding.CARDIOMEGALY, Finding.ENLARGED_CARDIOMEDIASTINUM} & {*rule.findings})
)
_EVENT = r"(?= (?:[\w-]+ ){0,4}(?:removal|placement|insertion|tubes?|drains?|drainage|lines?|catheter|\w*intubation)\b)"
_STRONG = re.compile(
    r"[;–—]|\.\s|(?:,\s*)?\b(?:but|while|whereas|however|although|though|"
    rf"(?:after|following|since|status post){_EVENT})\b,?"
)
_WEAK = re.compile(
    r"(,\s*(?:and\s|with\s|which\s)?|\b(?:and|(?<!compatible )(?<!consistent )with|without|as well as)\s)"
)
_VERB = re.compile(r"\b(?:is|are|has|have|was|were|remains?|appears?|shows?|persists?)\b")
_DENIED_AFTER = re.compile(
    r"\b(?:no|without|negative for|free of|absence of|neither|nor|rather than|rule out|ruled out|exclude)\b"
)
_DENIED_BEFORE = re.compile(
    r"\b(?:(?:is|are|was|were|has|have)(?: been)? not (?:\w+ly )?(?:seen|present|identified|evident|visible|"
    r"visuali[sz]ed|demonstrated|developed|appeared)|(?:is|are) absent)\b"
)
_SEEN_BEFORE = re.compile(r"\b(?:previous(?:ly)?|prior|formerly|earlier)\b")
_NOT_SEEN = re.compile(
    r"\bnot (?=(?:\w+ly )?(?:seen|identified|evident|visible|visuali[sz]ed|demonstrated|appreciated)\b"
    r"(?! (?:(?:on|in) (?:the |any )?)?(?:previous|prior|earlier|before|formerly)))"
)
_SIDE_BY_SIDE = re.compile(
    r"\b(?:larger|smaller|greater|worse|better|more \w+|less \w+) (?:on|in|at) the (?:left|right)(?=\s*(?:$|[.,;)]))"
)
_COMPARED = re.compile(
    r"\b(?:priors?|previous\w*|compar\w+|since|interval|interim|yesterday|earlier|before|today|now)\b"
)
_BACK = re.compile(r"^(?:\W|(?:all|both|each) of )*(?:this|these|it|they|those|both|all)\b")
_EACH = re.compile(r"\b(?:both|all)\b")
_OTHER = re.compile(r"\b(?:otherwise|other|remainder|elsewhere)\b")
_EXPANDED = re.compile(r"\bre-?expan")
_OTHER_TIME = re.compile(r"\b(?:from|than|compar\w+)\b[^,]*")
_UP_OR_DOWN = re.compile(r"\b(?:increas|decreas|reduc|diminish|lower|higher|less\b|more\b|greater)")
_GRADE = "|".join(GRADES)
_SIZE = r"(\d+(?:\.\d+)?)\s*(mm|cm)"
_DEPENDS = re.compile(
    r"(?:an? |the )?(?:adjacent|associated|subsequent|underlying|overlying|compressive|accompanying|secondary)"
)
_WAS_GRADE = re.compile(
    rf"\b(?:previously|formerly|(?:which )?was)(?: only| a| just)? ({_GRADE})\b|\b({_GRADE}) (?:previously|on the)\b"
)
_NOW_GRADE = re.compile(rf"\b({_GRADE})\b.*\b(?:(?:is|are) now|(?:has|have) become) (?:\w+ly )?({_GRADE})\b")
_WAS_SIZE = re.compile(rf"\b(?:previously|formerly|was|compared (?:to|with))(?: measur\w+| about| only)* {_SIZE}")
_REMOVED = re.compile(r"x{3,}|_+$")
"""Marks of removed text."""
_LONGEST = 300
"""Characters of a segment that may still grow, so that the time to read a run-on sentence is linear in its length."""
_FUNCTION = frozenset(["that", "which", "it", "its", "one", "side", "sided", "hand", "base", "is", "are", "also"])


@dataclass(slots=True)
class _Segment:
    """A part of a sentence, the findings that it names, and what it states of them.

    Args:
        cues: change, whether it is weak, and the words.
        names: all named findings.
        denied: those of them that it denies.
        leads: true if a cue precedes the first finding ("new effusion").
        closes: true if a cue follows the last finding ("effusion unchanged").
    """

    text: str
    cues: list[tuple[Change | None, bool, str]] = field(default_factory=list)
    names: set[Finding] = field(default_factory=set)
    denied: set[Finding] = field(default_factory=set)
    leads: bool = False
    closes: bool = False

    @property
    def changes(self) -> set[tuple[Change, bool]]:
        return {(change, weak) for change, weak, _ in self.cues if change is not None}


def changes(text: str) -> frozenset[FindingChange]:
    """The changes that a report states, by finding.

    A statement on the whole study ("no interval change", "otherwise unchanged") applies to every finding that the
    report states as present and to which it gives no change of its own; if there is none, to `Finding.NO_FINDING`.
    """
    found: set[FindingChange] = set()
    whole: set[Change] = set()
    present: set[Finding] = set()
    last: frozenset[Finding] = frozenset()
    for sentence in sentences(text):
        stated, about_all, named, refers_back = _of_sentence(sentence)
        if refers_back:
            stated, about_all = stated | {(finding, change) for finding in last for change in about_all}, frozenset()
        found |= stated
        whole |= about_all - {Change.NEW, Change.RESOLVED}
        present |= named
        last = named or last
    if whole:
        rest = present - {finding for finding, _ in found}
        found |= {(finding, change) for finding in rest for change in whole}
        if not present:
            found |= {(Finding.NO_FINDING, change) for change in whole}
    return frozenset(found)


@lru_cache(maxsize=1 << 16)  # reports repeat their sentences
def _of_sentence(sentence: str) -> tuple[frozenset[FindingChange], frozenset[Change], frozenset[Finding], bool]:
    """The changes of the findings of a sentence, those of the whole study, the findings that it states as present, and
    whether it speaks of the findings of the sentence before.
    """
    plain = statement_on_prior(sentence)
    text = _normal(plain or sentence)
    segments = list(_segments(text))
    present = frozenset[Finding]().union(*(one.names - one.denied for one in segments))
    if not plain:
        return frozenset(), frozenset(), present, False
    compared = bool(_COMPARED.search(text))
    stated: dict[Finding, set[tuple[Change, bool]]] = {}
    about_all: set[Change] = set()
    before: set[Finding] = set()
    alone = True  # nothing but the whole study has been spoken of
    for segment in segments:
        found = segment.changes if compared or mentions_prior(segment.text) else set(_explicit(segment))
        names = segment.names - segment.denied
        if found and not segment.names and _says_nothing_else(segment):
            if before and not _OTHER.search(segment.text):
                names = before
            elif before or alone:
                about_all |= {change for change, _ in found}
        elif found and _EACH.search(segment.text):
            names |= before
        for finding in names:
            stated.setdefault(finding, set()).update(_possible(finding, found))
        before |= names
        alone = alone and _says_nothing_else(segment)
    result = {
        (finding, change)
        for finding, ones in stated.items()
        for change, weak in ones
        if not weak or all(other for _, other in ones)
    }
    return frozenset(result), frozenset(about_all), present, bool(_BACK.search(text)) and not present


def _explicit(segment: _Segment) -> Iterator[tuple[Change, bool]]:
    """The changes that are not stated by a word that also describes one study ("increased markings")."""
    for change, weak, cue in segment.cues:
        if change is not None and not _UP_OR_DOWN.match(cue):
            yield change, weak


def _possible(finding: Finding, found: Iterable[tuple[Change, bool]]) -> set[tuple[Change, bool]]:
    """A device is neither better nor worse; what is said so is what it treats."""
    if finding is not Finding.SUPPORT_DEVICES:
        return {*found}
    return {(change, weak) for change, weak in found if change not in (Change.WORSE, Change.IMPROVED)}


def _normal(text: str) -> str:
    text = text.lower().rstrip(" .")
    for pattern, word in ABBREVIATIONS:
        text = pattern.sub(word, text)
    text = _SIDE_BY_SIDE.sub(" ", text)
    return _NOT_SEEN.sub("no longer ", text) if _SEEN_BEFORE.search(text) else text


def _segments(text: str) -> Iterator[_Segment]:
    parts = _STRONG.split(text)
    for place in reversed(
        range(len(parts) - 1)
    ):  # "persistent but smaller effusion": the words before it lack a finding
        first = _read(parts[place])
        alone = first.cues and not first.names and _says_nothing_else(first)
        if alone and not _OTHER.search(parts[place]) and ";" not in text:
            parts[place : place + 2] = [" ".join(parts[place : place + 2])]
    for part in parts:
        pieces = _WEAK.split(part)
        current = pieces[0]
        for joint, piece in zip(pieces[1::2], pieces[2::2], strict=True):
            if len(current) > _LONGEST or _separate(current, joint, piece):
                yield _read(current)
                current = piece if "without" not in joint else joint + piece
            else:
                current += joint + piece
        if current.strip():
            yield _read(current)


def _separate(text: str, joint: str, following: str) -> bool:
    """Whether a part of a sentence speaks of its own findings, and not of those before it."""
    if "without" in joint:
        return bool(_read(joint + following).names)
    one, other = _read(text), _read(following)
    if not other.names:
        return False
    if other.cues:
        return bool(one.cues) or bool(one.names and (other.leads or _VERB.search(text)))
    if not one.names:
        return bool(one.cues and _VERB.search(text) and _VERB.search(following)) and not _says_nothing_else(one)
    if other.names == other.denied:
        return True
    if "with" in joint and one.cues and not _DEPENDS.match(following):  # "stable cardiomegaly with a small effusion"
        return True
    return one.closes or bool(_VERB.search(following))


@lru_cache(maxsize=1 << 12)
def _read(text: str) -> _Segment:
    rest, cues = text, []
    denials, places = [], []
    for cue in CUES:
        for match in cue.pattern.finditer(rest):
            places.append(match.start())
            cues.append((cue.change, cue.weak, match.group(), cue.device))
            if cue.change is None:
                denials.append(match.start())
        rest = cue.pattern.sub(lambda match: " " * len(match.group()), rest)
    named = list(_names(rest))
    if _EXPANDED.search(text):  # after a pneumothorax or a collapse, which the report names or not
        named = [one for one in named if one[0] is not Finding.LUNG_OPACITY]
    if any(device for *_, device in cues):
        named.append((Finding.SUPPORT_DEVICES, 0))
    denials += [match.start() for match in _DENIED_AFTER.finditer(rest)]
    until = max((match.start() for match in _DENIED_BEFORE.finditer(rest)), default=-1)
    first = min(denials, default=len(text))
    denied = {finding for finding, start in named if first < start or start < until}
    found = [(change, weak, words) for change, weak, words, _ in cues]
    if not any(change is not None and not weak for change, weak, _ in found):
        found += [(change, False, "") for change in _measured(text)]
    names = {finding for finding, _ in named}
    if AERATION.search(text) and names <= {Finding.LUNG_OPACITY}:
        found = [
            (_reversed(change) if _UP_OR_DOWN.search(words) else change, weak, words) for change, weak, words in found
        ]
    starts = [start for _, start in named]
    return _Segment(
        text,
        found,
        names,
        denied,
        leads=bool(starts and places) and min(places) < min(starts),
        closes=bool(starts and places) and max(places) > max(starts),
    )


def _names(text: str) -> Iterator[tuple[Finding, int]]:
    """The findings that a segment names, and where."""
    found = []
    for rule in _RULES:
        if (rule.where is None or rule.where.search(text)) and (rule.unless is None or not rule.unless.search(text)):
            found += [(finding, match.start()) for match in rule.what.finditer(text) for finding in rule.findings]
    found = [(finding, start) for finding, start in found if finding is not Finding.NO_FINDING]
    found += [(finding, match.start()) for finding, pattern in NAMES for match in pattern.finditer(text)]
    yield from found
    first = min((start for _, start in found), default=len(text))
    text = PLACE_ONLY.sub(lambda match: " " * len(match.group()), text)
    for finding, pattern in ANATOMY:
        match = pattern.search(text)
        subject = finding in (Finding.CARDIOMEGALY, Finding.ENLARGED_CARDIOMEDIASTINUM)
        if match and (match.start() < first if subject else not found):
            yield finding, match.start()


def _measured(text: str) -> Iterable[Change]:
    """The change between two sizes or grades ("now moderate, previously small")."""
    if was := _WAS_SIZE.search(text):
        now = re.search(_SIZE, text[: was.start()] + text[was.end() :])
        if now is None:
            return ()
        before, after = (float(one) * (10 if unit == "cm" else 1) for one, unit in (was.groups(), now.groups()))
    elif grades := _NOW_GRADE.search(text):
        before, after = (GRADES[one] for one in grades.groups())
    elif was := _WAS_GRADE.search(text):
        after_grade = re.search(rf"\b({_GRADE})\b", text[: was.start()] + text[was.end() :])
        if after_grade is None:
            return ()
        before, after = GRADES[was.group(1) or was.group(2)], GRADES[after_grade.group(1)]
    else:
        return ()
    return (Change.WORSE if after > before else Change.IMPROVED if after < before else Change.UNCHANGED,)


def _reversed(change: Change | None) -> Change | None:
    return {Change.WORSE: Change.IMPROVED, Change.IMPROVED: Change.WORSE}.get(change, change) if change else None


def _says_nothing_else(segment: _Segment) -> bool:
    """True if a segment without a finding consists of its cues and of words that name neither finding nor anatomy."""
    known = CHANGE_WORDS | MENTION_WORDS | PLACES | STATES | _FUNCTION
    rest = segment.text
    for cue in CUES:
        rest = cue.pattern.sub(" ", rest)
    rest = _OTHER_TIME.sub(" ", rest)
    words = re.findall(r"[a-z][\w-]+", WHOLE.sub(" ", rest))
    return all(word in known or _REMOVED.match(word) for word in words)
