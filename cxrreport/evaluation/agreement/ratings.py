"""Read the judgements of readers: verdicts that the review page exports, or a table of ratings."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrreport.errors import InputError
from cxrreport.evaluation.evaluate import MAIN
from cxrreport.storage.tables import read_text_table

Report = tuple[str, str]
"""Study id and system."""
VERDICTS = ("acceptable", "minor", "significant")
"""Verdicts of the review page, the best first."""
SEVERITIES = ("minor_errors", "actionable_errors", "urgent_errors")
OUTCOMES = ("verdict", "errors", "actionable_errors")
"""What readers state, each a number that is higher for a worse report. Actionable errors include the urgent ones."""
_OTHER_NAMES = {"study": "study_id", "report": "system", "rater": "reader"}
_GENERATED = "generated"
_BLIND = ("A", "B")
_KEPT = re.compile(r"^'+[=+\-@\t\r]")


@dataclass(frozen=True, slots=True)
class Ratings:
    """The ratings of all readers.

    Args:
        readers: their names, sorted.
        values: outcome to report to reader to value; outcomes without values are absent.
        counts: rows that were read, and those that were left out, by reason.
    """

    readers: Sequence[str]
    values: Mapping[str, Mapping[Report, Mapping[str, float]]]
    counts: Mapping[str, int]


def read_ratings(files: Sequence[Path], key: Path | None) -> Ratings:
    """Read the tables of one or several readers.

    Columns are study_id (or study), report (or system) and optionally reader (or rater; rows without it are of one
    reader, under the name of the file), and at least one of verdict, the numbers of errors by severity (`SEVERITIES`),
    and errors, a number. With columns by severity, errors is a list for people and is not read. A row of the review
    page without verdict and errors is unread. A reader's later row of a report replaces an earlier one, by written_at.

    Args:
        files: tables.
        key: table with study_id, report and system, which names the reports A and B of a blind page.

    Raises:
        InputError: a table cannot be read or has no rows, a column is missing, a value is no verdict or number of
            errors, the key is missing, or a reader rates a report twice without telling which rating is later.
    """
    systems = _read_key(key) if key is not None else {}
    counts = Counter(
        {"rows": 0, "without_reader": 0, "unread": 0, "without_verdict": 0, "duplicates": 0, "not_in_key": 0}
    )
    found: dict[tuple[Report, str], tuple[str, dict[str, float]]] = {}
    for path in files:
        rows = _rows(path)
        named = any(row.get("reader") for row in rows)
        for number, row in enumerate(rows, start=1):
            where = f"{path}, row {number}"
            counts["rows"] += 1
            counts["without_reader"] += named and not row.get("reader")
            study, report, reader = row.get("study_id"), row.get("system"), row.get("reader") or path.stem
            if not study or not report:
                raise InputError(f"{where}: study_id or report is missing")
            blind = report in _BLIND and "verdict" in row  # a table of ratings may have a system of this name
            if blind and key is None:
                raise InputError(f"{where}: report {report} is of a blind page; pass its key with --key")
            if blind and (study, report) not in systems:
                counts["not_in_key"] += 1
                continue
            system = systems.get((study, report), report)
            values = _values(row, where)
            counts["without_verdict"] += bool(values) and "verdict" in row and "verdict" not in values
            if not values:
                counts["unread"] += 1
                continue
            place, when = ((study, MAIN if system == _GENERATED else system), reader), row.get("written_at", "")
            before = found.get(place)
            counts["duplicates"] += before is not None
            if before is not None and before[1] != values and (before[0] == when or not (before[0] and when)):
                raise InputError(
                    f"{where}: {reader!r} rates report {report} of study {study} twice; keep one row of it"
                )
            if before is None or when > before[0]:
                found[place] = when, values
    values_of: dict[str, dict[Report, dict[str, float]]] = {}
    for (report_of, reader), (_, values) in found.items():
        for outcome, value in values.items():
            values_of.setdefault(outcome, {}).setdefault(report_of, {})[reader] = value
    readers = sorted({reader for _, reader in found})
    return Ratings(readers, {name: values_of[name] for name in OUTCOMES if name in values_of}, counts)


def _rows(path: Path) -> list[dict[str, str]]:
    rows = [{name: _unsafe(value) for name, value in row.items()} for row in read_text_table(path, others=_OTHER_NAMES)]
    if not rows:
        raise InputError(f"{path}: has no rows")
    columns = {name for row in rows for name in row}
    if not {"study_id", "system"} <= columns or not columns & {"verdict", "errors", *SEVERITIES}:
        raise InputError(
            f"{path}: columns study_id, report (or system), and verdict or errors are needed, separated by commas, "
            f"semicolons or tabs; found {', '.join(sorted(columns))}"
        )
    return rows


def _unsafe(cell: str) -> str:
    """A cell without the apostrophe that protects it from a spreadsheet."""
    return cell[1:] if _KEPT.match(cell) else cell


def _values(row: Mapping[str, str], where: str) -> dict[str, float]:
    values: dict[str, float] = {}
    if verdict := row.get("verdict", "").lower():
        if verdict not in VERDICTS:
            raise InputError(f"{where}: verdict is none of {', '.join(VERDICTS)}")
        values["verdict"] = VERDICTS.index(verdict)
    severities = [_number(row, name, where) for name in SEVERITIES if name in row]
    if severities:
        given = [value for value in severities if value is not None]
        # The page writes zeros for studies that were opened and not judged.
        if given and (any(given) or "verdict" not in row or "verdict" in values):
            values["errors"] = sum(given)
            if all(name in row for name in SEVERITIES) and len(given) == len(SEVERITIES):
                values["actionable_errors"] = given[1] + given[2]
    elif "errors" in row and (errors := _number(row, "errors", where)) is not None:
        values["errors"] = errors
    return values


def _number(row: Mapping[str, str], name: str, where: str) -> float | None:
    if not row[name]:
        return None
    try:
        value = float(row[name])
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"{where}: {name} is no number of errors")
    return value


def _read_key(path: Path) -> dict[tuple[str, str], str]:
    systems: dict[tuple[str, str], str] = {}
    for number, row in enumerate(read_text_table(path, required=("study_id", "report", "system")), start=1):
        place = row["study_id"], row["report"]
        if systems.setdefault(place, row["system"]) != row["system"] or not row["system"]:
            raise InputError(f"{path}, row {number}: report {place[1]} of study {place[0]} has no system, or two")
    return systems
