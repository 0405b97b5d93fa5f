"""Reports and splits from the rows of tables that come with data sets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from cxrreport.dataset import id_for_message
from cxrreport.errors import InputError
from cxrreport.ingestion.layouts.base import UNREADABLE, Document, StudyRow
from cxrreport.ingestion.moments import Moment, moment_in_table
from cxrreport.records import REPORT_SECTIONS, Report, Split
from cxrreport.settings import IngestSettings
from cxrreport.storage.decoding import UnreadableTextError, decode_text, is_damaged
from cxrreport.storage.tables import read_text_table

FULL_REPORT = ("report", "text")
"""Columns with a whole report; used if no section has its own column."""
REPORT_COLUMNS = (*REPORT_SECTIONS, *FULL_REPORT, "split")
"""Columns of a table of reports besides ids and `TIME_COLUMNS`."""
TIME_COLUMNS = ("study_date", "study_time", "study_order")
"""When a study was made, or its place among the studies of the patient."""

MAX_REPORT = 1 << 20
"""Largest file of one report, bytes. Larger ones are not read."""


def studies_of_table(
    path: Path, settings: IngestSettings, study_id_of: Callable[[str], str] = str
) -> dict[str, StudyRow]:
    """The rows of a table of reports by study id.

    Args:
        path: table with the column `study_id`, a report (`report_of`), and optionally `patient_id` and `split`.
        settings: names of its columns (`columns`), and its sheet.
        study_id_of: the id as the layout writes it.

    Raises:
        InputError: the table cannot be read, has no report, or lists a study twice.
    """
    by_study: dict[str, StudyRow] = {}
    used = ("study_id", *REPORT_COLUMNS, *TIME_COLUMNS)
    rows = read_text_table(path, optional=used, renamed=renamed_columns(settings), sheet=settings.sheet)
    if rows and not any("study_id" in row for row in rows):
        raise InputError(
            f"{path}: no column is study_id, a UID or an accession number; name it with --id-column "
            f"(columns: {', '.join(sorted(rows[0]))})"
        )
    for row in rows:
        study_id = study_id_of(row.get("study_id", ""))
        study = StudyRow(
            report=report_of(row),
            split=split_of(row, str(path)),
            patient_id=row.get("patient_id", ""),
            taken=taken_of(row),
        )
        if by_study.setdefault(study_id, study) != study:
            raise InputError(
                f"{path}: study {id_for_message('study', study_id)} is there twice with different rows; keep one"
            )
    if by_study and all(row.report is None for row in by_study.values()):
        raise InputError(
            f"{path}: no column is a report; name it with --report-column, or sections with --findings-column and "
            f"--impression-column (columns: {', '.join(sorted(row))})"
        )
    return by_study


def renamed_columns(settings: IngestSettings) -> dict[str, str]:
    """Columns of the table with the names under which they are read."""
    return {given: name for name, given in settings.columns.items()}


def report_of(row: Mapping[str, str]) -> Document | None:
    """The report in a row, from columns of sections or from one of `FULL_REPORT`; `None` if it has neither.

    A text that was decoded with loss makes the report `UNREADABLE`.
    """
    if any(section in row for section in REPORT_SECTIONS):
        texts = {section: row.get(section, "").replace("\ufeff", "") for section in REPORT_SECTIONS}
        if any(map(is_damaged, texts.values())):
            return UNREADABLE
        return Report(**{section: text.strip() for section, text in texts.items()})
    for column in FULL_REPORT:
        if column in row:
            return UNREADABLE if is_damaged(row[column]) else row[column].replace("\ufeff", "")
    return None


def report_in_file(data: bytes) -> Document:
    """The report in a text file, `UNREADABLE` if it exceeds `MAX_REPORT` or cannot be decoded without loss."""
    if len(data) > MAX_REPORT:
        return UNREADABLE
    try:
        text = decode_text(data)
    except UnreadableTextError:
        return UNREADABLE
    return UNREADABLE if is_damaged(text) else text


def taken_of(row: Mapping[str, str]) -> Moment | None:
    """The moment that `TIME_COLUMNS` state: a date, otherwise a whole number; `None` without either."""
    found = moment_in_table(row.get("study_date", ""), row.get("study_time", ""))
    place = re.fullmatch(r"(\d{1,9})(?:\.0+)?", row.get("study_order", ""))
    return found or (Moment(int(place[1]), dated=False) if place else None)


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
