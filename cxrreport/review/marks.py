"""Convert entities on tokens into marked pieces of the original text.

RadGraph annotates tokens, while a reader expects the report with its spacing and line breaks. The tokens are located in
the text. If that fails because the tokeniser changed characters, the tokens are shown instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cxrreport.records import EntityStatus

_REACH = 24
"""Number of characters after its expected position within which a token is searched."""


@dataclass(frozen=True, slots=True)
class MarkedEntity:
    """One RadGraph entity of a tokenised text, with its status.

    Args:
        tokens: words of the entity.
        label: RadGraph label, for example `Observation::definitely absent`.
        start: index of the first token.
        end: index of the last token, inclusive.
        status: a value of `EntityStatus`.
    """

    tokens: str
    label: str
    start: int
    end: int
    status: str

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"entity from token {self.start} to {self.end}")
        if self.status not in [*EntityStatus]:
            raise ValueError(f"entity status {self.status!r}; expected one of {', '.join(EntityStatus)}")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text, marked (`status` and `label` set) or plain (both empty). The parts joined are the text."""

    text: str
    status: str = ""
    label: str = ""


def token_spans(text: str, tokens: Sequence[str]) -> list[tuple[int, int]] | None:
    """Character spans `[start, end)` of `tokens` in `text`, in order; `None` if one is not found nearby."""
    spans = []
    cursor = 0
    for token in tokens:
        while cursor < len(text) and text[cursor].isspace():
            cursor += 1
        found = text.find(token, cursor, cursor + _REACH + len(token))
        if not token or found < 0:
            return None
        cursor = found + len(token)
        spans.append((found, cursor))
    return spans


def pieces(text: str, tokens: Sequence[str], entities: Sequence[MarkedEntity]) -> list[Piece]:
    """Cut `text` into marked and plain pieces.

    If entities overlap, missed and hallucinated ones take precedence over matched ones, then the one that starts first.

    Args:
        text: the scored report.
        tokens: tokens of the same text.
        entities: entities on `tokens`.

    Returns:
        pieces whose texts joined are `text`, or the tokens joined by spaces if they cannot be located in `text`.

    Raises:
        ValueError: an entity ends after the last token.
    """
    for entity in entities:
        if entity.end >= len(tokens):
            raise ValueError(f"entity ends at token {entity.end}, but there are only {len(tokens)}")
    spans = token_spans(text, tokens)
    if spans is None:
        text = " ".join(tokens)
        spans = token_spans(text, tokens)
    if not spans:
        return [Piece(text)] if text else []
    chosen: list[tuple[int, int, MarkedEntity]] = []
    for entity in sorted(entities, key=lambda one: (one.status == "matched", one.start, -one.end)):
        start, end = spans[entity.start][0], spans[entity.end][1]
        if all(end <= other_start or start >= other_end for other_start, other_end, _ in chosen):
            chosen.append((start, end, entity))
    cut: list[Piece] = []
    cursor = 0
    for start, end, entity in sorted(chosen, key=lambda one: one[0]):
        if start > cursor:
            cut.append(Piece(text[cursor:start]))
        cut.append(Piece(text[start:end], entity.status, entity.label))
        cursor = end
    if cursor < len(text):
        cut.append(Piece(text[cursor:]))
    return cut
