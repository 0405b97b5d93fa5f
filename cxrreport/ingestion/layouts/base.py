"""What a layout lists, and what layouts share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cxrreport.dataset import Covariates
from cxrreport.errors import InputError
from cxrreport.ingestion.moments import Moment
from cxrreport.records import Exclusion, Reason, Report, Split, View
from cxrreport.settings import IngestSettings
from cxrreport.storage.tables import is_table, read_text_table

Document = Report | str
"""A report as a layout has it: its sections, or its whole text, which is split into sections when its study is read."""

UNREADABLE = Report()
"""Compared by identity: a report that exists and cannot be decoded without loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One image that a layout lists. Fields that are empty or `None` are read from the header of the file.

    Args:
        path: the file.
        source: path relative to the input folder, with `/`, for manifest and exclusion log.
        report: `None` if the layout has no report for this study.
        covariates: of a table, if they were requested.
        taken: when it was made.
        identity: `Header.identity` when the header was read; empty if no header was needed.
        copies: other files with this image id, in the order in which they are tried if this one cannot be read.
    """

    path: Path
    source: str
    image_id: str = ""
    study_id: str = ""
    patient_id: str = ""
    split: Split | None = None
    view: View | None = None
    report: Document | None = None
    covariates: Covariates | None = None
    notes: tuple[str, ...] = ()
    taken: Moment | None = None
    identity: str = ""
    copies: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """One study in a table of reports.

    Args:
        patient_id: used if neither the layout nor a header states one; may be empty.
        taken: when the study was made.
    """

    report: Document | None
    split: Split | None
    patient_id: str = ""
    taken: Moment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All images of an input.

    Args:
        layout: name of the layout, never `auto`.
        sources: images, in a fixed order.
        excluded: listed items that cannot be used.
        official_split: True if the data set assigns images to splits. Images without a split are then excluded instead
            of being assigned one by their patient.
        by_study: rows of a table of reports by study id, joined when headers have been read.
    """

    layout: str
    sources: list[Source]
    excluded: list[Exclusion] = field(default_factory=list)
    official_split: bool = False
    by_study: Mapping[str, StudyRow] = field(default_factory=dict)


class Layout(Protocol):
    """How a data set is arranged on disk. A module of this package with these two functions is one."""

    def recognises(self, settings: IngestSettings) -> bool:
        """True if the input has files that are specific to this layout."""

    def list_images(self, settings: IngestSettings) -> Listing:
        """List the images of the input, without decoding any.

        Raises:
            InputError: the input is not of this layout, or one of its tables cannot be read.
        """


def require_folder(settings: IngestSettings, layout: str) -> None:
    """Raise InputError if the input is a file."""
    if not settings.input.is_dir():
        raise InputError(f"{settings.input}: the layout {layout} needs a folder, and this is a file")


def has_column(table: Path, name: str, sheet: str | None) -> bool:
    """True if a table, or a sheet of a workbook, has this column and at least one row."""
    return any(name in row for row in read_text_table(table, optional=(name,), sheet=sheet, most=1))


def report_without_images(study_id: str) -> Exclusion:
    """The row of the exclusion log for a report without images."""
    return Exclusion(source="", reason=Reason.IMAGE_MISSING, detail="a report without images", study_id=study_id)


def newest_table(root: Path, pattern: str) -> Path | None:
    """The table with the latest version in its name; `None` if there is none."""
    return max((path for path in root.glob(pattern) if is_table(path)), default=None) if root.is_dir() else None
