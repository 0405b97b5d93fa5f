"""Removal of mentions of prior studies from a report by rules.

A model that sees one image cannot tell what is stable, new or gone. PaliGemma 2 (arXiv 2412.03555) removed such words
from MIMIC-CXR with a language model. The rules here edit a sentence if its meaning does not change ("Stable
cardiomegaly" becomes "Cardiomegaly"), and otherwise drop and count it ("No new effusion" is not "No effusion").

An edit is made only if its construction is known as a whole. `guards` checks every edit: the words that remain are
words of the sentence in their order, except for a few verbs ("remains" becomes "is"); every word keeps its polarity and
certainty; no mention is left; the result is a well-formed statement. What fails a check is dropped and counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from cxrreport.reports.priors.comparisons import cannot_be_edited, remove_comparison
from cxrreport.reports.priors.constructions import is_known_whole
from cxrreport.reports.priors.detection import mentions_prior
from cxrreport.reports.priors.guards import (
    LONGEST_EDITED,
    is_well_formed,
    keeps_assertions,
    keeps_the_present,
    passes,
)
from cxrreport.reports.priors.proposals import deletes_known_phrases
from cxrreport.reports.priors.rules import (
    STATES_A_CHANGE,
    VERB,
    edit_clause,
    is_anatomy_only,
    tidy,
)
from cxrreport.reports.priors.seams import has_sound_seams
from cxrreport.reports.priors.spelling import with_correct_changes
from cxrreport.reports.sentences import sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """A text without mentions of prior studies.

    Args:
        text: the remaining text.
        sentences: number of sentences before removal.
        mentioned: number of sentences with a mention: `edited` + `dropped`.
        edited: number of sentences that were changed or lost a clause.
        dropped: number of sentences that were removed.
        accepted: number of edited sentences whose proposed edit was used.
        unchanged: number of sentences with a mention whose proposed edit is the sentence itself.
        rejected: number of sentences with a mention whose proposed edit failed a check.
    """

    text: str
    sentences: int = 0
    mentioned: int = 0
    edited: int = 0
    dropped: int = 0
    accepted: int = 0
    unchanged: int = 0
    rejected: int = 0


def prior_sentences(text: str) -> list[str]:
    """The sentences of a section that mention a prior study and are short enough to be edited."""
    return [sentence for sentence in sentences(text) if len(sentence) <= LONGEST_EDITED and mentions_prior(sentence)]


def remove_priors(text: str, proposals: Mapping[str, str] | None = None) -> Edited:
    """Remove the mentions of prior studies from a section.

    Args:
        text: findings or impression.
        proposals: edits of `prior_sentences`, for example those of a language model. One that passes the checks is
            used; otherwise the rules edit the sentence.

    Returns:
        The text with its sentences unchanged, edited, or dropped if no safe edit exists. A numbered list is renumbered
        after an item is dropped.
    """
    given = sentences(text)
    kept: list[str] = []
    mentioned = dropped = 0
    outcomes: Counter[str] = Counter()
    for sentence in given:
        read = _read if len(sentence) <= LONGEST_EDITED else _read.__wrapped__
        mention, edited = read(sentence)
        if not mention:
            kept.append(sentence)
            continue
        mentioned += 1
        if proposals and sentence in proposals:
            proposed, outcome = check_proposal(sentence, proposals[sentence])
            edited = proposed or edited
            outcomes[outcome] += 1
        if edited is None:
            dropped += 1
        else:
            kept.append(edited)
    if dropped:
        kept = _renumbered(kept)
    return Edited(
        text=" ".join(kept),
        sentences=len(given),
        mentioned=mentioned,
        edited=mentioned - dropped,
        dropped=dropped,
        **outcomes,
    )


@lru_cache(2**14)  # most sentences of a large archive occur often; some megabytes
def _read(sentence: str) -> tuple[bool, str | None]:
    """Whether a sentence mentions a prior study, and its edit by the rules."""
    mention = mentions_prior(sentence)
    return mention, edit_sentence(sentence) if mention else None


def check_proposal(sentence: str, proposal: str) -> tuple[str | None, str]:
    """A proposed edit of a sentence, with the sentence's number and final punctuation, and the outcome of the checks.

    Beside the checks of the rules' own edits, every deleted phrase must be a known one (`proposals`).

    Returns:
        The edit and `accepted`, or `None` and `unchanged` or `rejected`.
    """
    if max(len(sentence), len(proposal)) > LONGEST_EDITED:
        return None, "rejected"
    number, body, mark = _parts(sentence)
    _, edit, _ = _parts(proposal.upper() if body.isupper() else proposal)
    if edit.lower() == body.lower():
        return None, "unchanged"
    if not edit or mentions_prior(edit) or is_anatomy_only(edit):
        return None, "rejected"
    if not (passes(body, edit) and deletes_known_phrases(body, edit)):
        return None, "rejected"
    return f"{number}{edit[0].upper()}{edit[1:]}{mark if mark != ':' else '.'}", "accepted"


@lru_cache(maxsize=1 << 15)  # reports repeat their sentences
def edit_sentence(sentence: str) -> str | None:
    """Remove the mention from a sentence; `None` if no known construction fits or a guard rejects the edit."""
    if len(sentence) > LONGEST_EDITED:
        return None
    number, body, mark = _parts(with_correct_changes(sentence))
    without = remove_comparison(body)
    if cannot_be_edited(body) or _RUN_ON.search(body):
        return None
    compared = without != body
    clauses = list(_clauses(without))
    kept: list[tuple[str, str]] = []
    for link, clause in clauses:
        edited = edit_clause(clause) if compared or mentions_prior(clause) else clause
        # The edit of a single clause is checked as the sentence, below.
        if edited and (edited == clause or len(clauses) == 1 or passes(clause, edited)):
            kept.append((link, edited))
    if not kept or (compared and any(STATES_A_CHANGE.search(clause) for _, clause in kept)):
        return None
    if any(VERB.search(clause) for _, clause in kept) and not any(re.search(r"[;.]", link) for link, _ in kept):
        kept = [(link, _stated(clause) if clause not in dict(clauses).values() else clause) for link, clause in kept]
    if not all(clause for _, clause in kept):
        return None
    if any(_CONTRAST.search(link) for link, _ in kept[1:]) and not all(VERB.search(clause) for _, clause in kept):
        return None
    joined = kept[0][1] + "".join(f"{link}{_lowered(clause)}" for link, clause in kept[1:])
    result = tidy(joined)
    if body.isupper():
        result = result.upper()
    if VERB.match(result) or mentions_prior(result) or is_anatomy_only(result) or not is_well_formed(result):
        return None
    if not has_sound_seams(body, result) or not is_known_whole(body, result):
        return None
    complete = len(kept) == len(clauses)
    if not (passes(body, result) if complete else keeps_the_present(body, result) and keeps_assertions(body, result)):
        return None
    return f"{number}{result}{mark if mark != ':' else '.'}"


_PARTS = re.compile(
    r"^(?P<number>\(?(?:\d{1,2}[.)]|[a-h]\))(?:\s+|(?=[A-Za-z])))?(?P<body>.*?)(?P<mark>[\s.?!]*)$", re.DOTALL
)
_LINK = re.compile(
    r"(?P<semicolon>\s*;\s*)"
    r"|(?P<link>,?\s+(?:and|but|while|although|though|however)\s+)"
    r"(?=(?:there|no|(?:[\w-]+ ){1,5}(?:is|are|has|have|persists?|remains?))\b)"
    r"|(?P<stop>\.\s+)(?=[a-z])"
    r"|(?P<comma>,\s+)(?=(?:there (?:is|are)|no(?!\s+chang| longer|t))\b)",
    re.IGNORECASE,
)
_RUN_ON = re.compile(
    r"[a-z],?\s+(?:The|There|No|This|Visualized|Heart|Lungs)\s|[a-z]{3}\.[A-Z][a-z]|^With\b|\b[Tt]here's\b"
)
_CONTRAST = re.compile(r"\b(?:but|while|although|though|however)\b", re.IGNORECASE)
_LEADING_PHRASE = re.compile(
    r"^(?:on|in|at|within|with|along|over|near|below|above|from|for|given|due)\b", re.IGNORECASE
)


def _parts(sentence: str) -> tuple[str, str, str]:
    match = _PARTS.match(" ".join(sentence.split()))
    if match is None:  # the pattern matches everything
        return "", sentence, ""
    return match["number"] or "", match["body"], match["mark"].strip()[:1]


def _clauses(body: str) -> Iterator[tuple[str, str]]:
    """The clauses that can be edited independently, each with the words that link it to the previous one."""
    start, link = 0, ""
    for match in _LINK.finditer(body):
        if _LEADING_PHRASE.match(body[start : match.start()]) and not VERB.search(body[start : match.start()]):
            continue  # "On the lateral view, there is ..."
        if match["link"] and "," not in match["link"] and not VERB.search(body[start : match.start()]):
            continue  # "The heart and the lungs are ...": one subject
        yield link, body[start : match.start()]
        start, link = match.end(), match.group()
    yield link, body[start:]


_HEAD = re.compile(
    r"^(?P<phrase>.+?)(?=\s+(?:in|at|of|on|with|along|over|near|within|without|adjacent)\b|,|$)", re.IGNORECASE
)
_NO_ARTICLE = re.compile(
    r"(?:^(?:an?|the|no|some|multiple|several|both|bilateral|two|three|this|these|\d)\b|(?:edema|oedema|"
    r"congestion|atelectasis|"
    r"cardiomegaly|emphysema|fibrosis|scarring|thickening|fluid|air|gas|haziness|consolidation|opacification|"
    r"calcification|"
    r"adenopathy|lymphadenopathy|disease|engorgement|pneumonia|enlargement|elevation|blunting|prominence|"
    r"tortuosity|change|"
    r"[^s]s)$)",
    re.IGNORECASE,
)


_MEASURE = re.compile(
    r"\b(?:position\w*|size|appearance|location|placement|contours?|silhouette|volumes?|markings|vascul\w+)\b",
    re.IGNORECASE,
)


def _stated(clause: str) -> str:
    """A sentence for the noun phrase that an edit left beside another clause: `there is a left effusion`.

    It is empty for a phrase that names normal anatomy or a measure.
    """
    if VERB.search(clause) or re.match(r"(?:no|with|without)\b", clause, re.IGNORECASE):
        return clause
    found = _HEAD.match(clause)
    phrase = found["phrase"] if found else clause
    if _MEASURE.search(phrase):
        return ""
    plural = re.search(
        r"(?<!si)(?<!ti)(?<!u)(?<!s)s$|\b(?:multiple|several|both|bilateral)\b| and ", phrase, re.IGNORECASE
    )
    article = "" if _NO_ARTICLE.search(phrase) else "an " if phrase[:1].lower() in "aeiou" else "a "
    return f"There {'are' if plural else 'is'} {article}{_lowered(clause)}"


def _lowered(clause: str) -> str:
    return clause if clause[1:2].isupper() else clause[:1].lower() + clause[1:]


def _renumbered(kept: list[str]) -> list[str]:
    """Renumber items (`1.`, `a)`) from the first; the number of a single one is removed."""
    for item, number in ((r"\d{1,2}(?=\.)", str), (r"[a-h](?=\))", lambda place: "abcdefgh"[place - 1])):
        places = [place for place, sentence in enumerate(kept) if re.match(rf"{item}[.)]\s", sentence)]
        kept = list(kept)
        for count, place in enumerate(places, start=1):
            start = number(count) if len(places) > 1 else ""
            kept[place] = re.sub(rf"^{item}" if start else rf"^{item}[.)]\s+", start, kept[place])
    return kept
