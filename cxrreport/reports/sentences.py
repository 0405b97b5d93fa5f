"""Sentence splitter for report sections that keeps every character."""

from __future__ import annotations

import re

# Closing punctuation, white space, and then the possible beginning of another sentence. A number alone (`1.`) begins a
# numbered item and belongs to the sentence after it. A run of marks is read once, from its start.
_END = re.compile(r"(?P<mark>(?<![.?!])[.?!]+[\"')\]]*)(?P<gap>\s+)(?=[\"'(\[]?[A-Z0-9_]|[b-h]\)\s)")
_NUMBER = re.compile(r"(?:^|\s)\(?\d{1,2}[.)]$")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:dr|drs|mr|mrs|ms|vs|no|approx|e\.g|i\.e|cf|fig|st|a\.m|p\.m|incr|decr|prev|poss|prob|sl)\.$",
    re.IGNORECASE,
)
_TAIL = 12
"""More characters than the longest number or abbreviation with its punctuation."""


def sentences(text: str) -> list[str]:
    """Split a section into sentences.

    Args:
        text: one section, on one line or several.

    Returns:
        The sentences, including the number of a numbered item (`1.`). Joined with single spaces, they are equal to
        `text` with its white space normalised.
    """
    text = " ".join(text.split())
    result: list[str] = []
    start = 0
    for match in _END.finditer(text):
        end = match.end("mark")
        tail = text[max(start, end - _TAIL) : end]  # the whole piece would make the time quadratic
        # The number of an item has no text before it, unlike `... the level of T 8.`.
        if _NUMBER.search(tail) and match["mark"] == "." and text.find(" ", start, end) < 0:
            continue
        abbreviation = _ABBREVIATION.search(tail)
        # `no.` abbreviates "number" only before a digit.
        if abbreviation and (abbreviation.group().strip(" (").lower() != "no." or text[match.end()].isdigit()):
            continue
        result.append(text[start:end])
        start = match.end()
    if text[start:]:
        result.append(text[start:])
    return result
