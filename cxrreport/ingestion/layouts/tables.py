"""Reports and splits from the rows of tables that come with data sets."""

from __future__ import annotations

from collections.abc import Mapping

from cxrreport.errors import InputError
from cxrreport.records import REPORT_SECTIONS, Report, Split
from cxrreport.reports.sections import parse_report

FULL_REPORT = ("report", "text")
"""Columns with a whole report, which is split into sections; used if no section has its own column."""


def report_of(row: Mapping[str, str]) -> Report | None:
    """The report in a row, from columns of sections or from one of `FULL_REPORT`; `None` if it has neither.

    White space within sections is normalised.
    """
    if any(section in row for section in REPORT_SECTIONS):
        return Report(**{section: " ".join(row.get(section, "").split()) for section in REPORT_SECTIONS})
    for column in FULL_REPORT:
        if column in row:
            return parse_report(row[column])
    return None


def split_of(row: Mapping[str, str], where: str) -> Split | None:
    """The split in the column `split` (also `val`, `valid`, `validation`, `dev`); `None` if it is empty.

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
