"""Grammar at the places where an edit deleted or added words.

Only neighbours that the edit made are tested, so that a fault of the original sentence costs nothing.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

_TOKEN = re.compile(r"[a-z0-9_]+(?:[-/'.][a-z0-9_]+)*|[,;:()]")
_FIRST, _LAST = "<first>", "<last>"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PUNCTUATION = frozenset([",", ";", ":", _LAST, ")"])
_CONJUNCTIONS = _words("and or but nor")
_ARTICLES = _words("a an the its their this these those every each both")
_PREPOSITIONS = _words(
    "of to by from than as per with without in on at within along over under near for about into onto through "
    "until since during between among despite via due given"
)
_PLACES = _words("in on at within along over under near above below between through beneath behind")
_COPULAS = _words("is are was were be been being")
_VERBS = _words(
    "has have had may might could can should would will does do did appears appear seems seem shows show demonstrates "
    "demonstrate reveals reveal remains remain represents represent suggests suggest reflects reflect indicates "
    "indicate measures measure contains contain"
)
_ADVERBS = _words(
    "also well very more less most least quite rather somewhat likewise otherwise only too so not "
    "slightly mildly moderately markedly significantly minimally largely mainly mostly"
)
_MEASURES = _words(
    "size sizes number extent degree position positions positioning appearance appearances amount severity "
    "configuration alignment distribution volume location"
)
_OPPOSITES = _words("old known chronic acute subacute healed remote prior")  # "old and new fractures"
_COMPLEMENTS = {
    "consistent": frozenset(["with"]),
    "compatible": frozenset(["with"]),
    "suggestive": frozenset(["of"]),
    "concerning": frozenset(["for"]),
    "worrisome": frozenset(["for"]),
    "secondary": frozenset(["to"]),
    "due": frozenset(["to"]),
    "related": frozenset(["to"]),
    "status": frozenset(["post"]),
}


def has_sound_seams(before: str, after: str) -> bool:
    """True if no pair of neighbours that an edit made breaks the grammar ("are given", "consistent of", "is and").

    Args:
        before: the sentence or clause as written.
        after: its edit.
    """
    given = [_FIRST, *_TOKEN.findall(before.lower()), _LAST]
    kept = [_FIRST, *_TOKEN.findall(after.lower()), _LAST]
    for tag, _, _, start, end in SequenceMatcher(None, given, kept, autojunk=False).get_opcodes():
        if tag != "equal" and any(_breaks(kept, place) for place in range(max(start - 1, 0), min(end, len(kept) - 1))):
            return False
    return True


def _breaks(tokens: list[str], place: int) -> bool:
    left, right = tokens[place], tokens[place + 1]
    after = tokens[place + 2] if place + 2 < len(tokens) else _LAST
    if right in {"to", "than", "from", "by"} and left not in _COMPLEMENTS | dict.fromkeys(_COPULAS | _VERBS | {_FIRST}):
        return True
    if right == "in" and after in _MEASURES and left not in _COPULAS:
        return True
    if left in _COMPLEMENTS:
        return right not in _COMPLEMENTS[left]
    if left == _FIRST:
        return (
            right in _CONJUNCTIONS | _COPULAS | _VERBS | _PUNCTUATION
            or (right in _PREPOSITIONS - _PLACES)
            or right
            in {
                "appearing",
                "greater",
                "not",
                "also",
                "apparent",
                "its",
                "their",
                "it",
                "they",
                "he",
                "she",
                "inserted",
                "placed",
                "added",
                "sited",
                "seen",
                "noted",
                "developed",
                "described",
                "though",
                "although",
                "while",
                "whereas",
            }
            or (right in _MEASURES and after not in {"of"})
            or (right in _MEASURES and after == "of" and not _COPULAS & set(tokens))
        )
    if left in _ARTICLES | (_PREPOSITIONS - {"given", "due"}):
        return right in _PUNCTUATION | _CONJUNCTIONS | _COPULAS | _VERBS or (
            right in _PREPOSITIONS and (left in _ARTICLES or right not in _PLACES)
        )
    if left in _COPULAS:
        there = place > 0 and tokens[place - 1] == "there"
        return (
            right in _PUNCTUATION | _CONJUNCTIONS | _COPULAS | _VERBS | _MEASURES
            or right in (_PREPOSITIONS if there else _PREPOSITIONS - _PLACES - {"due", "without"})
            or right == "appearing"
        )
    if left in _VERBS:
        return right in _PUNCTUATION | _CONJUNCTIONS | _COPULAS | _VERBS or right in _PREPOSITIONS - _PLACES - {"to"}
    if left in _CONJUNCTIONS:
        return (
            tokens[place - 1] in _OPPOSITES
            or right in _PUNCTUATION | _CONJUNCTIONS
            or right in {"of", "to", "by", "from", "than", "as", "given"}
        )
    if left in _PUNCTUATION:
        return right in (_PUNCTUATION - {_LAST, ")"}) | _COPULAS or right == "than"
    if left == "there":
        return right not in _COPULAS
    return (
        left in _ADVERBS | {"all", "both", "each", "most", "year", "month", "week"}
        and right in _PUNCTUATION | _CONJUNCTIONS
    )
