"""CSV and Parquet tables that come with data sets, read to rows of text with checked columns."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cxrreport.errors import InputError
from cxrreport.records import REPORT_SECTIONS, Report, Split
from cxrreport.reports.sections import parse_report

Row = dict[str, str]
SUFFIXES = (".csv", ".csv.gz", ".parquet")
FULL_REPORT = ("report", "text")
"""Columns that hold a whole report, to be split into sections; used where no section has a column of its own."""


def is_table(path: Path) -> bool:
    """True where the name says CSV, gzipped CSV or Parquet."""
    return path.name.lower().endswith(SUFFIXES)


def read_table(path: Path, *, required: Sequence[str] = ()) -> list[Row]:
    """Read a table, every value as text without surrounding blanks, a missing value as an empty text.

    Args:
        path: CSV (UTF-8, comma, header row), the same gzipped, or Parquet.
        required: columns that must be there, in lower case.

    Returns:
        One dict per row; column names in lower case.

    Raises:
        InputError: the file cannot be read, or a required column is missing.
    """
    if not is_table(path):
        raise InputError(f"{path}: expected a table with a name that ends in {', '.join(SUFFIXES)}")
    try:
        rows, columns = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    except OSError as error:
        raise InputError(f"{path}: the table cannot be read ({error.strerror or type(error).__name__})") from error
    except (csv.Error, UnicodeDecodeError, EOFError, zlib.error, pa.ArrowException) as error:
        raise InputError(f"{path}: the table cannot be read ({type(error).__name__})") from None
    missing = [name for name in required if name not in columns]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}; found {', '.join(sorted(columns)) or 'none'}")
    return rows


def _read_csv(path: Path) -> tuple[list[Row], set[str]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    rows = [{_column(name): (value or "").strip() for name, value in row.items() if name is not None} for row in reader]
    return rows, {_column(name) for name in reader.fieldnames or ()}


def _read_parquet(path: Path) -> tuple[list[Row], set[str]]:
    table = pq.read_table(path)
    names = [_column(name) for name in table.column_names]
    columns = [
        ["" if value is None else str(value).strip() for value in column.to_pylist()] for column in table.columns
    ]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)], set(names)


def _column(name: str) -> str:
    return name.strip().lower()


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
