"""Mentions of earlier studies, found and taken out of a report by rules.

A model that sees one image cannot know what is stable, new or gone; PaliGemma 2 (arXiv 2412.03555) removed such words
from MIMIC-CXR with a language model. Here rules edit what can be edited without a change of meaning ("Stable
cardiomegaly" becomes "Cardiomegaly") and leave out, and count, what cannot ("No new effusion" is not "No effusion").

Editing only deletes words, but for a few verbs ("remains" becomes "is"). No deletion touches a negation, a word of
change within the reach of a negation is never deleted alone, and what still mentions an earlier study after all rules
is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from cxrreport.reports.priors.mentions import mentions_prior
from cxrreport.reports.priors.rules import (
    SAID_TO_CHANGE,
    VERB,
    cannot_be_edited,
    edit_clause,
    polished,
    says_nothing,
    without_comparison,
)
from cxrreport.reports.sentences import sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """A text without mentions of earlier studies.

    Args:
        text: what is left of it.
        sentences: number of its sentences.
        mentioned: how many of them mentioned an earlier study: `edited` + `dropped`.
        edited: how many were changed, or lost a clause.
        dropped: how many were left out as a whole.
    """

    text: str
    sentences: int = 0
    mentioned: int = 0
    edited: int = 0
    dropped: int = 0


def remove_priors(text: str) -> Edited:
    """Take the mentions of earlier studies out of a section.

    Args:
        text: findings or impression.

    Returns:
        The sentences that mention none as they are, others edited, and without those that cannot be edited safely.
        A numbered list is numbered anew where an item is gone.
    """
    given = sentences(text)
    kept: list[str] = []
    mentioned = dropped = 0
    for sentence in given:
        if not mentions_prior(sentence):
            kept.append(sentence)
            continue
        mentioned += 1
        edited = edit_sentence(sentence)
        if edited is None:
            dropped += 1
        else:
            kept.append(edited)
    if dropped:
        kept = _renumbered(kept)
    return Edited(
        text=" ".join(kept), sentences=len(given), mentioned=mentioned, edited=mentioned - dropped, dropped=dropped
    )


def edit_sentence(sentence: str) -> str | None:
    """One sentence without its mention of an earlier study, or None where no safe edit is known."""
    number, body, mark = _taken_apart(sentence)
    kept: list[tuple[str, str]] = []
    without = without_comparison(body)
    if cannot_be_edited(body):
        return None
    compared = without != body
    for link, clause in _clauses(without):
        edited = edit_clause(clause) if compared or mentions_prior(clause) else clause
        if edited:
            kept.append((link, edited))
    if not kept or (compared and any(SAID_TO_CHANGE.search(clause) for _, clause in kept)):
        return None
    joined = kept[0][1] + "".join(f"{link}{_lowered(clause)}" for link, clause in kept[1:])
    result = polished(joined)
    if VERB.match(result) or mentions_prior(result) or says_nothing(result):
        return None
    return f"{number}{result}{mark}"


# --- A sentence in its parts ---

_PARTS = re.compile(r"^(?P<number>\(?\d{1,2}[.)]\s+)?(?P<body>.*?)(?P<mark>[\s.?!]*)$", re.DOTALL)
_LINK = re.compile(
    r"(?P<semicolon>\s*;\s*)"
    r"|(?P<link>,?\s+(?:and|but|while|although|though|however)\s+)"
    r"(?=(?:there|no|the [\w ]{1,40}? (?:is|are|has|have))\b)"
    r"|(?P<stop>\.\s+)(?=[a-z])"
    r"|(?P<comma>,\s+)(?=(?:there (?:is|are)|no(?!\s+chang| longer|t))\b)",
    re.IGNORECASE,
)

_LEADS = re.compile(r"^(?:on|in|at|within|with|along|over|near|below|above|from|for|given|due)\b", re.IGNORECASE)


def _taken_apart(sentence: str) -> tuple[str, str, str]:
    match = _PARTS.match(" ".join(sentence.split()))
    if match is None:  # the pattern matches everything
        return "", sentence, ""
    return match["number"] or "", match["body"], match["mark"].strip()[:1]


def _clauses(body: str) -> Iterator[tuple[str, str]]:
    """The clauses that can be judged alone, each with what links it to the one before."""
    start, link = 0, ""
    for match in _LINK.finditer(body):
        if _LEADS.match(body[start : match.start()]) and not VERB.search(body[start : match.start()]):
            continue  # "On the lateral view, there is ..."
        yield link, body[start : match.start()]
        start, link = match.end(), match.group()
    yield link, body[start:]


def _lowered(clause: str) -> str:
    return clause if clause[1:2].isupper() else clause[:1].lower() + clause[1:]


def _renumbered(kept: list[str]) -> list[str]:
    """Numbers at the start of sentences counted anew from 1; a single one is no list."""
    numbered = [bool(re.match(r"\d{1,2}\.\s", sentence)) for sentence in kept]
    if sum(numbered) <= 1:
        return [re.sub(r"^\d{1,2}\.\s+", "", sentence) for sentence in kept]
    result, count = [], 0
    for sentence, has_number in zip(kept, numbered, strict=True):
        count += has_number
        result.append(re.sub(r"^\d{1,2}\.", f"{count}.", sentence) if has_number else sentence)
    return result
