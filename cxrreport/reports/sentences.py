"""From the text of a section to its sentences, without losing a character."""

from __future__ import annotations

import re

# The end of a sentence: closing punctuation, blanks, and then what may begin another one. A number alone (`1.`) begins
# a numbered item and belongs to what follows it.
_END = re.compile(r"(?P<mark>[.?!]+[\"')\]]*)(?P<gap>\s+)(?=[\"'(\[]?[A-Z0-9_])")
_NUMBER = re.compile(r"(?:^|\s)\(?\d{1,2}[.)]$")
_SHORT = re.compile(r"(?:^|[\s(])(?:dr|drs|mr|mrs|ms|vs|no|approx|e\.g|i\.e|cf|fig|st|a\.m|p\.m)\.$", re.IGNORECASE)
_NOT_SHORT = frozenset({"no."})


def sentences(text: str) -> list[str]:
    """Split a section into sentences.

    Args:
        text: one section, on one line or several.

    Returns:
        The sentences, each with its number (`1.`) where it has one; joined with single blanks they give `text` with
        its white space made single blanks.
    """
    text = " ".join(text.split())
    result: list[str] = []
    start = 0
    for match in _END.finditer(text):
        piece = text[start : match.end("mark")]
        if _NUMBER.search(piece) and (match["mark"] == "." and not _measures(piece)):
            continue
        short = _SHORT.search(piece)
        # `no.` is a number only before a digit.
        if short and (short.group().strip(" (").lower() not in _NOT_SHORT or text[match.end()].isdigit()):
            continue
        result.append(piece)
        start = match.end()
    if text[start:]:
        result.append(text[start:])
    return result


def _measures(piece: str) -> bool:
    """True where a number at the end is the end of a sentence (`... the level of T 8.`), not that of an item."""
    return len(piece.split()) > 1
