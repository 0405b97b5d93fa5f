"""Which prior study is shown beside each study, and its report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cxrreport.errors import InputError
from cxrreport.records import PriorStudy, Study
from cxrreport.review.content import ShownReport, sections
from cxrreport.review.marks import Piece
from cxrreport.storage.tables import read_text_table


def read_priors(path: Path, studies: Mapping[str, Study]) -> dict[str, str]:
    """Read a table with study_id and prior_study_id, for the studies of a manifest.

    Raises:
        InputError: the table cannot be read, a study is its own prior or has two, no row is of these studies, or a
            prior is of another patient.
    """
    priors: dict[str, str] = {}
    for number, row in enumerate(read_text_table(path, required=("study_id", "prior_study_id")), start=1):
        study, prior = row["study_id"], row["prior_study_id"]
        if study not in studies or prior not in studies:
            continue
        where = f"{path}, row {number}"
        if study == prior or priors.setdefault(study, prior) != prior:
            raise InputError(f"{where}: study {study} is its own prior or has two; keep one row with an earlier study")
        if studies[study].patient_id != studies[prior].patient_id:
            raise InputError(f"{where}: study {prior} is of another patient than study {study}; correct the row")
    if not priors:
        raise InputError(f"{path}: no row names two studies of the data; use the study ids of their manifest")
    return priors


def prior_of(study: Study, studies: Mapping[str, Study], priors: Mapping[str, str]) -> PriorStudy | None:
    """The prior study that a table names for a study, or else that of the manifest."""
    other = studies.get(priors.get(study.study_id, ""))
    if other is None:
        return study.prior
    report = other.report_with_mentions or other.report
    return PriorStudy(study_id=other.study_id, image_ids=other.image_ids, report=report)


def prior_reports(prior: PriorStudy | None) -> Iterator[ShownReport]:
    """The report of a prior study as the page shows it; nothing if there is none, or it is empty."""
    if prior is None:
        return
    parts = [("FINDINGS", prior.report.findings), ("IMPRESSION", prior.report.impression)]
    shown = [one for title, text in parts if text for one in sections([Piece(text)], [title], [0])]
    if shown:
        days = "" if prior.days is None else f", {prior.days} {'day' if prior.days == 1 else 'days'} before"
        yield ShownReport(key="prior", title=f"Prior study{days}", judged=False, sections=shown)
