"""Misspelled words of change ("unchaged", "persistant") in their correct form."""

from __future__ import annotations

import re
from functools import lru_cache

from cxrreport.reports.headers import misspelled

_CHANGES = """
    unchanged worsening worsened persistent persists interval previous previously compared comparison improved improving
    improvement increasing decreasing resolved resolving resolution residual redemonstrated progressive progression
    enlarging significant slightly stable
"""
_CORRECT = """
    compare compares comparisons improve improves improver improvements impoverished insignificant internal intervals
    lightly persist persistence persisted pervious procession profession progressing regression regressive aggression
    residua residuals residue resolve resolver resolves reviving revolution revolved solution similarly significance
    significantly staple stapled staples sightly worsen worsens repression recession
"""
_TARGETS = tuple(_CHANGES.split())
_KNOWN = frozenset(_CORRECT.split()) | frozenset(_TARGETS)
"""Correct words, some of which are near to a word of change."""
_LONG = re.compile(r"[a-z]{6,}", re.IGNORECASE)


def with_correct_changes(text: str) -> str:
    """Correct the spelling of words that state a change; all other words stay as they are."""
    return _LONG.sub(lambda found: _corrected(found.group()), text)


@lru_cache(maxsize=50_000)
def _corrected(word: str) -> str:
    plain = word.lower()
    if plain in _KNOWN:
        return word
    found = next((target for target in _TARGETS if misspelled(plain, target)), None)
    if found is None:
        return word
    return found.upper() if word.isupper() else found.capitalize() if word[0].isupper() else found
