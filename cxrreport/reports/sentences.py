"""Sentence splitter for report sections that keeps every character."""

from __future__ import annotations

import re

# Closing punctuation, white space, and then the possible beginning of another sentence. A number alone (`1.`) begins a
# numbered item and belongs to the sentence after it.
_END = re.compile(r"(?P<mark>[.?!]+[\"')\]]*)(?P<gap>\s+)(?=[\"'(\[]?[A-Z0-9_])")
_NUMBER = re.compile(r"(?:^|\s)\(?\d{1,2}[.)]$")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:dr|drs|mr|mrs|ms|vs|no|approx|e\.g|i\.e|cf|fig|st|a\.m|p\.m)\.$", re.IGNORECASE
)


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
        piece = text[start : match.end("mark")]
        if _NUMBER.search(piece) and match["mark"] == "." and not _has_text_before_number(piece):
            continue
        abbreviation = _ABBREVIATION.search(piece)
        # `no.` abbreviates "number" only before a digit.
        if abbreviation and (abbreviation.group().strip(" (").lower() != "no." or text[match.end()].isdigit()):
            continue
        result.append(piece)
        start = match.end()
    if text[start:]:
        result.append(text[start:])
    return result


def _has_text_before_number(piece: str) -> bool:
    """True if the number at the end belongs to a sentence (`... the level of T 8.`) and not to a numbered item."""
    return len(piece.split()) > 1
