"""From entities on tokens to marked pieces of the text as it was written.

RadGraph annotates a tokenised text, while a reader wants the report with its own spacing and line breaks. The tokens
are found again in the text; where that fails (a tokeniser that changed characters), the tokens themselves are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Status = Literal["matched", "missed", "invented"]
STATUSES: tuple[str, ...] = get_args(Status)

_REACH = 24
"""How many characters a token may lie behind the place where it is expected before the search is given up."""


@dataclass(frozen=True, slots=True)
class Entity:
    """One entity of RadGraph on a tokenised text.

    Args:
        tokens: its words.
        label: RadGraph's label, e.g. `Observation::definitely absent`.
        start: index of the first token.
        end: index of the last token, itself part of the entity.
        status: `matched` on both sides, `missed` on the reference only, `invented` on the candidate only.
    """

    tokens: str
    label: str
    start: int
    end: int
    status: Status

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"an entity from token {self.start} to {self.end}")
        if self.status not in STATUSES:
            raise ValueError(f"an entity with the status {self.status!r}; known are {', '.join(STATUSES)}")


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of text, marked (`status` and `label` set) or plain (both empty). Pieces put together give the text."""

    text: str
    status: str = ""
    label: str = ""


def token_spans(text: str, tokens: Sequence[str]) -> list[tuple[int, int]] | None:
    """Character spans `[start, end)` of `tokens` in `text`, in order; None where one is not found near its place."""
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


def pieces(text: str, tokens: Sequence[str], entities: Sequence[Entity]) -> list[Piece]:
    """Cut `text` into marked and plain pieces.

    Where entities overlap, missed and invented ones win over matched ones, and then the one that begins first.

    Args:
        text: the report as it was scored.
        tokens: the same text as RadGraph split it.
        entities: on `tokens`.

    Returns:
        pieces whose texts together are `text`, or the tokens joined by spaces where they are not found in it.

    Raises:
        ValueError: an entity ends behind the last token.
    """
    for entity in entities:
        if entity.end >= len(tokens):
            raise ValueError(f"an entity that ends at token {entity.end} of {len(tokens)}")
    spans = token_spans(text, tokens)
    if spans is None:
        text = " ".join(tokens)
        spans = token_spans(text, tokens)
    if not spans:
        return [Piece(text)] if text else []
    chosen: list[tuple[int, int, Entity]] = []
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
