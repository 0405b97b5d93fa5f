"""Checks on every edit at run time: an edit that fails one of them is dropped.

The checks do not use the rules that made the edit. They compare the words, polarity and certainty before and after it,
and test the shape of the result.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from cxrreport.reports.priors.assertions import read_assertions
from cxrreport.reports.priors.seams import has_sound_seams
from cxrreport.reports.priors.vocabulary import (
    ADDED_WORDS,
    ANATOMY,
    CHANGE_WORDS,
    FINDING,
    MENTION_WORDS,
    PLACES,
    STATES,
)

LONGEST_EDITED = 500
"""Sentences with more characters are dropped instead of edited."""

_FLAGS = re.IGNORECASE
_WORD = re.compile(r"[a-z0-9_]+(?:[-/'][a-z0-9_]+)*")
_BEGINS = re.compile(
    r"^(?:\W|(?:and|or|but|nor|than|that|which|who|of|by|to|with|from|given|allowing|considering|because|"
    r"since|through|until|compared|"
    r"relative|comparison|as|is|are|has|have|been|was|were|ly|not|at least|in addition|"
    r"(?:size|degree|extent|position|severity|amount) of(?!.* (?:is|are) )|(?:right|left) (?:greater|"
    r"larger|more) than (?:right|left)(?=\W*$))\b)",
    _FLAGS,
)
_ENDS = re.compile(
    r"(?:\b(?:and|or|but|nor|than|that|which|of|by|to|with|without|from|in|on|at|the|a|an|as|is|are|has|"
    r"have|been|be|no|not|"
    r"there|appears?|shows?|demonstrates?|reveals?|seems?|since|until|through|its|their|likewise|very|more|less|"
    r"known|thought|felt|noted to)|"
    r"[,:;(]|\b(?:is|are|appears?) (?:\w+ly|positioned|located|situated|placed))\W*$",
    _FLAGS,
)
_BARE_MEASURE = re.compile(
    r"^(?:(?!\b(?:is|are)\b)[^,;:])*\b(?:lines?|tubes?|catheters?|leads?|devices?|picc|drains?|pacemaker|pacer|"
    r"wires?|ports?|tips?|fractures?|"
    r"effusions?|nodules?|mass|opacity|opacities|pneumothorax|edema|hardware)\s+"
    r"(?:position|positions|positioning|size|appearance|placement|location|alignment|configuration)\W*$",
    _FLAGS,
)
_BROKEN = re.compile(
    r"\b(?:of|in|with|without|to|on|by|from|the|an?|no|very)\s*(?:,|;|\b(?:is|are|and|or|but|has|have|of|"
    r"in|with|by|from)\b)|"
    r"\b(?:that|which)\s+\w+\s+(?:is|are)\b|\b(?:and|or|but)\s+(?:and|or|but)\b|\b(?:is|are)\s+(?:is|are|"
    r"has|have|and|or)\b|"
    r"\bas \w+\W*$|\ban? (?:appearing|appearance|position|change|finding)\b|\bthrough\b|\bsince\b|\bdating\b|"
    r"\d:\d\d|\b[ap]\.m\b|[,;]\s*[,;.]|,\s*\d+\W*$|"
    r"\b(?:is|are)\s+(?:may|might|could|(?:indicate|represent|suggest|reflect|demonstrate)s?)\b|"
    r"^(?:(?!\b(?:is|are|appears?|has|have|and|,)\b)[^,;])*\band\s+(?:unremarkable|normal|intact|clear|"
    r"within normal limits)\W*$",
    _FLAGS,
)
_ADVERB_ALONE = re.compile(r"^(?:rapidly|slowly|gradually|steadily|considerably|substantially|relatively)\b", _FLAGS)
_PAST = re.compile(r"\b(?:was|were|had|showed|measured|demonstrated on|became|become|formerly|returned)\b", _FLAGS)
_EARLIER = re.compile(r"\b(?:previously|formerly|prior|previous|earlier|yesterday|before)\b", _FLAGS)
_PRESENT = re.compile(r"\b(?:now|currently|today|is|are|appears?)\b", _FLAGS)
_SAME_STATE = frozenset(
    [
        "persistent",
        "persisting",
        "persists",
        "persist",
        "residual",
        "remaining",
        "remains",
        "remain",
        "again",
        "still",
        "now",
        "currently",
        "stable",
        "unchanged",
        "same",
        "similar",
        "constant",
        "static",
        "continued",
    ]
)
_IMAGING_WORDS = frozenset(
    ["ct", "cts", "radiograph", "radiographs", "exam", "examination", "study", "film", "scan", "films"]
)
_DROPPED_PHRASE = frozenset(["with", "without", "which", "that", "but", "no", "and"])
_PRONOUN_SUBJECT = re.compile(
    r"^(?:this|these|those|it|they|both|that|he|she|all|findings?)\b(?!\s+(?!is\b|are\b|has\b|appears?\b|"
    r"seems?\b)\w+\s+\w+)",
    _FLAGS,
)


def words(text: str) -> list[str]:
    """Words of a text in lower case."""
    return _WORD.findall(text.lower())


def passes(before: str, after: str) -> bool:
    """True if an edited sentence or clause keeps the words, polarity and certainty of its original, and its shape.

    Args:
        before: the sentence or clause as written.
        after: its proposed edit.
    """
    return (
        len(before) <= LONGEST_EDITED
        and is_well_formed(after)
        and has_sound_seams(before, after)
        and leaves_no_bare_anatomy(before, after)
        and deletes_only_mentions(before, after)
        and keeps_assertions(before, after)
        and keeps_the_present(before, after)
    )


def is_well_formed(text: str) -> bool:
    """True if a text has a finding or device as its head, and neither begins, ends nor breaks at a dangling word."""
    plain = text.strip()
    return not (
        _BEGINS.match(plain)
        or _ENDS.search(plain)
        or _BARE_MEASURE.match(plain)
        or _BROKEN.search(plain)
        or _ADVERB_ALONE.match(plain)
        or _PRONOUN_SUBJECT.match(plain)
        or not FINDING.search(plain)
    )


def deletes_only_mentions(before: str, after: str) -> bool:
    """True if the words after the edit are words of the original in order, and each deleted run is a mention.

    A run is a mention if all of its words are words of change and comparison, or if it is a whole phrase about a
    change up to the end of the clause ("without new opacity"). Only the verbs `is`, `are`, `seen` and
    `there` are added.
    """
    given, kept = words(before), words(after)
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, given, kept, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        if any(word not in ADDED_WORDS for word in kept[j1:j2]):
            return False
        run = given[i1:i2]
        if given[i2 : i2 + 1] == ["in"] and run and run[-1] in {"increased", "decreased"}:
            return False
        if i1 and given[i1 - 1] in {"is", "are"} and run[:1] in (["redemonstration"], ["re-demonstration"]):
            return False
        if i1 and given[i1 - 1] == "with" and run[:1] == ["no"]:
            return False
        if run and _IMAGING_WORDS & set(given[i2 : i2 + 2]):
            return False  # part of the name of a prior study is left
        if run and run[0] in {"which", "that"} and given[i2 : i2 + 1] in (["and"], ["but"]):
            return False
        if all(_may_be_deleted(word) for word in run):
            # "decreased on the left" loses its place; "no new" loses its negation's object
            if run and run[-1] in CHANGE_WORDS and given[i2 : i2 + 1] in (["on"], ["than"]):
                return False
            continue
        if i1 == 0 and all(word in ANATOMY - PLACES or _may_be_deleted(word) for word in run):
            continue
        whole = run[0] in _DROPPED_PHRASE and (i2 == len(given) or _ends_phrase(before, given, i2))
        if not (whole and any(word in CHANGE_WORDS for word in run)):
            return False
    return True


_ITEM_ENDS = re.compile(
    r"[,;]|\b(?:with|suggest\w*|consistent|compatible|represent\w*|likely|concerning|which)\b", _FLAGS
)


def leaves_no_bare_anatomy(before: str, after: str) -> bool:
    """True if no item of a list ("cardiomegaly, stable contours") has become normal anatomy without a statement."""
    given = {" ".join(words(item)) for item in _ITEM_ENDS.split(before)}
    items = [words(item) for item in _ITEM_ENDS.split(after)]
    return not any(set(item) <= ANATOMY and " ".join(item) not in given for item in items if item)


def _may_be_deleted(word: str) -> bool:
    return word in MENTION_WORDS or word in CHANGE_WORDS or word.isdigit() or not word.strip("_x")


def _ends_phrase(text: str, given: list[str], end: int) -> bool:
    """True if punctuation follows the word before `end`."""
    found = list(_WORD.finditer(text.lower()))
    return len(found) == len(given) and text[found[end - 1].end() :].lstrip()[:1] in {",", ";", "."}


def keeps_assertions(before: str, after: str) -> bool:
    """True if every kept word is denied and doubted as before, and no change was deleted beside a negation."""
    given, kept = read_assertions(before), read_assertions(after)
    matcher = SequenceMatcher(None, [item.word for item in given], [item.word for item in kept], autojunk=False)
    survivors: set[int] = set()
    for i, j, size in matcher.get_matching_blocks():
        for offset in range(size):
            old, new = given[i + offset], kept[j + offset]
            survivors.add(i + offset)
            if (old.denied, old.doubted) != (new.denied, new.doubted):
                return False
    # Part of a denial of a change ("No pneumothorax has developed") must not become a denial of the finding.
    scopes = [item.scope for place, item in enumerate(given) if place in survivors and item.denied]
    return not any(
        item.denied and item.scope in scopes and item.word in CHANGE_WORDS - _SAME_STATE
        for place, item in enumerate(given)
        if place not in survivors
    )


def keeps_the_present(before: str, after: str) -> bool:
    """True if the edit does not present a past state ("previously large ... now small") as the present one."""
    if before == after:
        return True
    if _PAST.search(after):
        return False
    earlier = _EARLIER.search(before)
    if earlier is None:
        return True
    present = next((found for found in _PRESENT.finditer(before, earlier.end())), None)
    past = set(words(before[earlier.end() : present.start()])) if present else set()
    return not (past & STATES & set(words(after)))
