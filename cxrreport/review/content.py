"""What the page shows of each study, whatever it was read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cxrreport.reports.sentences import sentences
from cxrreport.review.marks import Piece

Sentence = Sequence[Piece]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section of a report.

    Args:
        title: `FINDINGS`, `IMPRESSION`, or empty if the section is not known.
        sentences: the text, cut into sentences of pieces; joined they are the text of the section.
    """

    title: str
    sentences: Sequence[Sentence]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownReport:
    """One report of a study.

    Args:
        key: name in the exported verdicts: `generated`, `reference`, `A` or `B`.
        title: heading on the page.
        judged: whether readers give a verdict on it.
        sections: its text; empty for an empty report.
    """

    key: str
    title: str
    judged: bool
    sections: Sequence[Section]

    @property
    def pieces(self) -> list[Piece]:
        """The pieces of all sections in their order."""
        return [piece for section in self.sections for sentence in section.sentences for piece in sentence]


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRow:
    """Statements of both reports on one finding, a row of `findings.parquet`.

    Args:
        name: name of the finding.
        candidate: presence, sides and severity stated in the generated report; empty strings if not stated.
        reference: the same for the reference.
        error: `omitted`, `hallucinated` or empty.
        contradiction: kind of contradiction within the generated report, or empty.
    """

    name: str
    candidate: tuple[str, str, str]
    reference: tuple[str, str, str]
    error: str
    contradiction: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedStudy:
    """One study of the page.

    Args:
        score: the number by which the page is ordered, in [0, 1]; `None` if it is not shown.
        scores: names and values of all numbers.
        reports: the reports side by side.
        findings: CheXpert findings that either report states.
        notes: short remarks under the study id.
    """

    study_id: str
    score: float | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    reports: Sequence[ShownReport]
    findings: Sequence[FindingRow] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The studies of a page, with what applies to all of them.

    Args:
        system: what the header of the page names.
        studies: the studies in the order of the page.
        digest: SHA-256 of the shown texts, hex; key of the readers' notes in the browser.
        ordered_by: name of `ReviewedStudy.score`; empty if the page shows none.
        blind: whether the page must not show which report is which.
        marked: whether entities are marked.
        summary: content of `scores.json`; empty without an evaluation.
    """

    system: str
    studies: Sequence[ReviewedStudy]
    digest: str
    ordered_by: str = ""
    blind: bool = False
    marked: bool = False
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def conditions(self) -> Mapping[str, Any]:
        """Conditions of the scores, as in `scores.json`."""
        conditions: Mapping[str, Any] = self.summary.get("conditions", {})
        return conditions

    @property
    def synthetic(self) -> bool:
        """True if the scores were made with weights that this project has trained on phantoms."""
        return bool(self.conditions.get("synthetic"))


def sections(pieces: Sequence[Piece], titles: Sequence[str], starts: Sequence[int]) -> list[Section]:
    """Cut a marked text into sections and sentences.

    Args:
        pieces: the text as pieces.
        titles: titles of the sections in their order.
        starts: index of the first character of each section; the first one is 0.
    """
    text = "".join(piece.text for piece in pieces)
    result = []
    for title, start, end in zip(titles, starts, [*starts[1:], len(text)], strict=True):
        ends = _sentence_ends(text[start:end])
        cut = [_part(pieces, start + first, start + last) for first, last in zip([0, *ends], ends, strict=False)]
        if cut:
            result.append(Section(title=title, sentences=cut))
    return result


def _sentence_ends(text: str) -> list[int]:
    """Index after each sentence and the white space that follows it."""
    places = [index for index, character in enumerate(text) if not character.isspace()]
    ends, seen = [], 0
    for sentence in sentences(text):
        seen += sum(not character.isspace() for character in sentence)
        ends.append(places[seen] if seen < len(places) else len(text))
    return ends


def _part(pieces: Sequence[Piece], start: int, end: int) -> list[Piece]:
    """The pieces of the characters `[start, end)`."""
    part, at = [], 0
    for piece in pieces:
        text = piece.text[max(0, start - at) : max(0, end - at)]
        if text:
            part.append(Piece(text, piece.status, piece.label))
        at += len(piece.text)
    return part
