"""The summary of an ingest, and statistics of its reports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cxrreport.dataset import ManifestRow
from cxrreport.ingestion.texts import IDENTIFIERS, TOO_LONG
from cxrreport.records import Exclusion, Reason, Split
from cxrreport.reports.language import is_other_language
from cxrreport.reports.near_duplicates import count_near_duplicates
from cxrreport.storage.output_folder import OutputFolder

OTHER_LANGUAGE = "other_language"
FAILURES = frozenset({Reason.NOT_READABLE, Reason.TOO_LARGE, Reason.BAD_PIXELS, Reason.BAD_LUT, Reason.IMAGE_MISSING})
"""Reasons why an image could not be read, as opposed to one that is not wanted."""
_OF_REPORTS = frozenset({OTHER_LANGUAGE, TOO_LONG})


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSummary:
    """The outcome of an ingest; `read` = `kept` + the sum of `left_out`. A job of an array counts its own studies.

    Args:
        folder: the output folder.
        layout: given or detected.
        official_split: True if the data set assigns images to splits.
        read: images, and reports without images, that the input contains or lists.
        kept: images in the manifest.
        left_out: excluded images per reason code.
        notes: number of kept images per note.
        studies: studies per split.
        priors, laterals: studies with and without a prior study and a lateral, by the reason
            (`prior_studies.link_priors`, `count_laterals`); empty for a job of an array.
        reports_in_several_splits: training reports that occur word for word in another split.
        near_duplicate_reports: validation and test reports that nearly equal a training report
            (`reports.near_duplicates`).
        texts: counts of reports, of the removal of mentions of prior studies, and of identifiers
            (`texts.PreparedText`).
        digest: SHA-256 of the content (`dataset.manifest.content_digest`); empty for a job of an array.
        seconds: wall time of the run that finished.
        resumed: True if this call found earlier work.
    """

    folder: Path
    layout: str
    official_split: bool
    read: int
    kept: int
    left_out: dict[str, int]
    notes: dict[str, int]
    studies: dict[str, int]
    reports_in_several_splits: int
    near_duplicate_reports: int
    texts: dict[str, int]
    digest: str
    seconds: float
    resumed: bool = False
    priors: dict[str, int] = field(default_factory=dict)
    laterals: dict[str, int] = field(default_factory=dict)

    @property
    def mentions(self) -> dict[str, int]:
        """Counts of the removal of mentions of prior studies."""
        return {name: count for name, count in self.texts.items() if name not in _OF_REPORTS and "." not in name}

    @property
    def identifiers(self) -> dict[str, int]:
        """Identifiers that were marked or replaced in the texts, per kind."""
        found = self.texts.items()
        return {name.removeprefix(IDENTIFIERS): count for name, count in found if name.startswith(IDENTIFIERS)}


def read_summary(folder: OutputFolder, *, resumed: bool) -> IngestSummary:
    """The summary in `ingest.json` of a finished run."""
    names = IngestSummary.__dataclass_fields__.keys() - {"folder", "resumed"}
    return IngestSummary(
        folder=folder.path, resumed=resumed, **{name: folder.record[name] for name in names & folder.record.keys()}
    )


def studies_per_split(rows: list[ManifestRow]) -> dict[str, int]:
    """Number of studies in each split."""
    studies = defaultdict(set)
    for row in rows:
        studies[row.image.split].add(row.image.study_id)
    return {split.value: len(studies[split]) for split in Split}


def count_shared_reports(rows: list[ManifestRow]) -> int:
    """Number of training reports that occur word for word in another split."""
    texts: dict[str, set[str]] = defaultdict(set)
    reports = {row.image.study_id: (row.image.split, row.report) for row in rows}
    training = []
    for split, report in reports.values():
        text = " ".join(f"{report.findings} {report.impression}".lower().split())
        texts[text].add(split)
        if split is Split.TRAIN and text:
            training.append(text)
    return sum(len(texts[text]) > 1 for text in training)


def count_near_duplicate_reports(rows: list[ManifestRow]) -> int:
    """Number of validation and test reports that nearly equal a training report."""
    reports = {row.image.study_id: (row.image.split, row.report) for row in rows}
    texts = [(split, f"{report.findings} {report.impression}") for split, report in reports.values()]
    return count_near_duplicates(
        (text for split, text in texts if split is not Split.TRAIN),
        (text for split, text in texts if split is Split.TRAIN),
    )


def count_other_languages(rows: list[ManifestRow]) -> dict[str, int]:
    """Number of reports that are not in English, under `OTHER_LANGUAGE`. Here, as workers would each hold the model."""
    reports = {row.image.study_id: row.report for row in rows}
    found = sum(is_other_language(f"{report.findings} {report.impression}") for report in reports.values())
    return {OTHER_LANGUAGE: found} if found else {}


def unread(excluded: Iterable[Exclusion], kept: Collection[str]) -> list[Exclusion]:
    """One row for each study of which an image could not be read and none was kept, and for each file of no study.

    Args:
        excluded: rows of the exclusion log.
        kept: ids of studies with an image.
    """
    found: dict[str, Exclusion] = {}
    for row in excluded:
        if row.reason in FAILURES and row.study_id not in kept:
            found.setdefault(row.study_id or f"/{row.source}", row)
    return list(found.values())
