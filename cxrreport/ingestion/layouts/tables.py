"""Reports and splits from the rows of tables that come with data sets."""

from __future__ import annotations

from collections.abc import Mapping

from cxrreport.errors import InputError
from cxrreport.records import REPORT_SECTIONS, Report, Split
from cxrreport.reports.sections import parse_report

FULL_REPORT = ("report", "text")
"""Columns that hold a whole report, to be split into sections; used where no section has a column of its own."""


def report_of(row: Mapping[str, str]) -> Report | None:
    """The report in a row: from columns of sections, else from one of `FULL_REPORT`; None where there is neither.

    Sections are taken as they are, with blanks and line breaks made single blanks.
    """
    if any(section in row for section in REPORT_SECTIONS):
        return Report(**{section: " ".join(row.get(section, "").split()) for section in REPORT_SECTIONS})
    for column in FULL_REPORT:
        if column in row:
            return parse_report(row[column])
    return None


def split_of(row: Mapping[str, str], where: str) -> Split | None:
    """The split in the column `split` (`val`, `valid` and `validation` are understood), None where it is empty.

    Raises:
        InputError: another value.
    """
    value = row.get("split", "").lower()
    if not value:
        return None
    value = "validate" if value in {"val", "valid", "validation", "dev"} else value
    try:
        return Split(value)
    except ValueError:
        raise InputError(f"{where}: column split holds a value that is not one of train, validate, test") from None
