"""Hide which report is which, and write the key to a separate file."""

from __future__ import annotations

import csv
import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cxrreport.review.content import Content, ReviewedStudy, Section, ShownReport
from cxrreport.review.marks import Piece
from cxrreport.storage.atomic_files import atomic_path
from cxrreport.storage.decoding import FORMULA

Key = Sequence[tuple[str, str, str]]
"""Rows of the key: study id, `A` or `B`, and what that report is."""
_MARKS = {"matched": "shared", "missed": "unshared", "hallucinated": "unshared"}


def blinded(content: Content, seed: int) -> tuple[Content, Key]:
    """Order the studies and the two reports of each at random, and remove all that tells the reports apart.

    Scores and findings are removed. Marks tell only whether an entity is in both reports.

    Args:
        content: studies with two reports each.
        seed: of the random order; whoever knows it can repeat the assignment.
    """
    choose = random.Random(f"{seed}:{content.digest}")
    studies, key = [], []
    for study in sorted(content.studies, key=lambda study: study.study_id):
        pair = choose.sample(study.reports, 2)
        key += [(study.study_id, letter, report.key) for letter, report in zip("AB", pair, strict=True)]
        reports = [_neutral(report, letter) for letter, report in zip("AB", pair, strict=True)]
        studies.append(ReviewedStudy(study_id=study.study_id, reports=reports))
    choose.shuffle(studies)
    digest = hashlib.sha256(f"{seed}:{content.digest}".encode()).hexdigest()
    return Content(system="blind", studies=studies, digest=digest, blind=True, marked=content.marked), key


def _neutral(report: ShownReport, letter: str) -> ShownReport:
    cut = [
        Section(
            title=section.title,
            sentences=[
                [Piece(piece.text, _MARKS.get(piece.status, ""), piece.label) for piece in sentence]
                for sentence in section.sentences
            ],
        )
        for section in report.sections
    ]
    return replace(report, key=letter, title=f"Report {letter}", judged=True, sections=cut)


def write_key(path: Path, key: Key) -> None:
    """Write the key as CSV with the columns study_id, report and system.

    A cell that a spreadsheet would run as a formula begins with a space, which readers of tables strip.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["study_id", "report", "system"])
        writer.writerows([f" {cell}" if cell.startswith(FORMULA) else cell for cell in row] for row in key)
