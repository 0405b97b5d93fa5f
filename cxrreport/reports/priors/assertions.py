"""Polarity and certainty of every word of a sentence, read independently of the rules that edit it.

A small version of ConText (Harkema et al., J Biomed Inform 2009): a trigger denies or doubts the words in its scope,
and a terminator ends the scope. "No change" is a pseudo-trigger: it denies no finding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(r"[a-z0-9_]+(?:[-/'][a-z0-9_]+)*|[,;.:]")
_PSEUDO = re.compile(
    r"\b(?:no|without|little|not|nothing)\s+(?:\w+\s+){0,3}(?:changed?|changes)\b|\bnot\s+(?:\w+\s+)?only\b"
)
_DENIES_AFTER = frozenset(
    [
        "no",
        "not",
        "without",
        "never",
        "neither",
        "nor",
        "none",
        "negative",
        "free",
        "absence",
        "absent",
        "lack",
        "denied",
    ]
)
_DENIES_BEFORE = frozenset(["resolved", "cleared", "gone", "absent", "disappeared", "removed", "excluded"])
_DOUBTS = frozenset(
    [
        "possible",
        "possibly",
        "probable",
        "probably",
        "likely",
        "unlikely",
        "may",
        "might",
        "could",
        "suspected",
        "suspicious",
        "questionable",
        "perhaps",
        "suggest",
        "suggests",
        "suggesting",
        "suggestive",
        "versus",
        "vs",
        "concerning",
        "presumed",
        "cannot",
        "potentially",
    ]
)
_TERMINATORS = frozenset(["but", "however", "although", "though", "while", "whereas", ";", ".", ":"])
_FINITE = frozenset(["is", "are", "has", "have", "seen", "identified", "noted"])


@dataclass(frozen=True, slots=True)
class Assertion:
    """A word, whether its sentence denies or doubts it, and the number of the scope that it is in."""

    word: str
    denied: bool
    doubted: bool
    scope: int


def read_assertions(text: str) -> list[Assertion]:
    """Read the polarity and certainty of every word, in order, without punctuation."""
    tokens = _TOKEN.findall(_PSEUDO.sub(lambda found: " ".join("_pseudo_" for _ in found[0].split()), text.lower()))
    plain = _TOKEN.findall(text.lower())
    if len(plain) != len(tokens):
        tokens = plain
    result: list[Assertion] = []
    start = 0
    for end in range(len(tokens) + 1):
        if end == len(tokens) or tokens[end] in _TERMINATORS:
            result += _read_clause(tokens[start:end], plain[start:end], start)
            start = end + 1
    return result


def _read_clause(tokens: list[str], plain: list[str], start: int) -> list[Assertion]:
    doubted = any(token in _DOUBTS for token in tokens)
    denied_after = denied_before = verb = False
    positions = [place for place, word in enumerate(tokens) if word in _DENIES_BEFORE]
    last_denial = positions[-1] if positions else -1
    scope = start
    result = []
    for place, word in enumerate(tokens):
        if word in {",", "and"} and verb:
            denied_after = verb = False
            scope = start + place
        if word in _DENIES_AFTER:
            denied_after = True
        verb = verb or (denied_after and word in _FINITE)
        denied_before = place <= last_denial
        if word != ",":
            result.append(Assertion(plain[place], denied_after or denied_before, doubted, scope))
    return result
