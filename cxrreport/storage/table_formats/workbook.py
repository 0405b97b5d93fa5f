"""Tables in Excel's own format (Office Open XML), read by openpyxl as a stream."""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from openpyxl.reader.excel import ExcelReader
from openpyxl.styles.numbers import BUILTIN_FORMATS_MAX_SIZE
from openpyxl.styles.stylesheet import apply_stylesheet
from openpyxl.utils.cell import get_column_letter, range_boundaries
from openpyxl.utils.escape import unescape
from openpyxl.worksheet._reader import FORMULA_TAG, MERGE_TAG, ROW_TAG, VALUE_TAG, WorkSheetParser
from openpyxl.xml.constants import SHARED_STRINGS
from openpyxl.xml.functions import iterparse

from cxrreport.errors import InputError
from cxrreport.storage.table_formats.column_names import IDS, WantedColumns
from cxrreport.storage.table_formats.messages import say_once, shortened
from cxrreport.storage.table_formats.workbook_archive import Archive, damage, damaged

MAX_ROWS, MAX_COLUMNS = 1 << 20, 1 << 14
"""Excel's own limits."""
MAX_SHEETS, MAX_NAME, MAX_ELEMENTS = 1000, 255, 1 << 18
_EXACT = 10**15  # Excel keeps 15 digits of a number; those after them are zeros
_EAST_ASIAN_DATES = frozenset({*range(27, 37), *range(50, 59)})  # built-in formats that openpyxl does not know
_CELLS = 3  # that an element of the texts is counted as: openpyxl makes objects of it, which also takes time
_HALF_A_SECOND = timedelta(milliseconds=500)
_TITLES = 20
"""Rows with values among which the header is: exports have titles, dates and filters above it."""


class Limits(NamedTuple):
    """How much is read of a workbook: bytes of XML, characters of a row, and rows below the header (`None`: all).

    `take` is called with numbers of rows, cells and characters before they are kept.
    """

    size: int
    longest: int
    rows: int | None
    take: Callable[[int, int, int], None]


class _Error(str):
    """The name of the error in a cell, for example `#N/A`."""


class _NotCalculated:
    """Stands for the value of a formula that has none."""


_Value = str | int | float | date | time | timedelta | _NotCalculated
_Row = tuple[int, dict[int, _Value]]
"""The number of a row, and its values by column, both from 1."""


def read_workbook(
    path: Path, wanted: WantedColumns, sheet: str | None, limits: Limits
) -> tuple[Mapping[str, str], list[dict[str, str | None]], str, str]:
    """Read the table of a sheet, as texts.

    Returns:
        The columns with the names under which they are read; one dict per row, in which cells without value and errors
        are `None`; the format with the sheet; and a note about the rows.

    Raises:
        InputError: the file is no workbook, a damaged or too large one; several sheets have values; a formula has no
            value; or a cell is no id where one is needed.
    """
    with _open_sheet(path, sheet, limits) as (found, place_of):
        where = f"{path}, sheet {found.name}"
        lines = found.rows()
        head = list(islice(lines, _TITLES))
        if not head:
            raise InputError(f"{where}: the sheet has no data")
        place, header = _header(head, wanted)
        names = wanted.of(header.values())
        columns = {column: names[name] for column, name in header.items() if name in names}
        rows: dict[int, dict[str, str | None]] = {}
        errors: Counter[str] = Counter()
        for number, cells in chain(head[place + 1 :], lines):
            if len(rows) == limits.rows:
                break
            values = {name: cells.get(column) for column, name in columns.items()}
            for column in columns.keys() & cells.keys():
                if fault := _fault(cells[column], columns[column]):
                    raise InputError(f"{where}, cell {get_column_letter(column)}{number}: {fault}")
                if isinstance(cells[column], _Error):
                    errors[f"{cells[column]} in column {header[column]}"] += 1
            if columns.keys() & cells.keys():
                rows[number] = {name: None if value is None else _text(value) for name, value in values.items()}
                limits.take(1, len(columns), sum(map(len, filter(None, rows[number].values()))))
        for first, last, column in found.merged:
            value = rows.get(first, {}).get(columns.get(column, ""))
            for row in range(first + 1, last + 1) if value else ():
                if row in rows and rows[row][columns[column]] is None:
                    rows[row][columns[column]] = value
                    limits.take(0, 0, len(value or ""))
    if errors:
        listed = ", ".join(f"{count:,} {error}" for error, count in errors.most_common(5))
        say_once(path, f"sheet {found.name}: cells with errors are read as empty: {listed}", logging.WARNING)
    kind = f"workbook, sheet {shortened(found.name)} ({place_of}), header in row {head[place][0]}"
    return names, list(rows.values()), kind, f" ({found.hidden_rows:,} hidden)" if found.hidden_rows else ""


def _header(head: Sequence[_Row], wanted: WantedColumns) -> tuple[int, dict[int, str]]:
    """The place of the header and its names by column.

    It is the first row with two names that the reader knows, otherwise the first that has at least half as many cells
    as the fullest. A cell without a name has that of the cell above it, with which it then is merged.
    """
    candidates: list[dict[int, str]] = []
    for (above, upper), (row, cells) in zip([(0, {}), *head], head, strict=False):
        names = {**upper, **cells} if row == above + 1 else cells
        candidates.append({column: _text(names[column]) or "" for column in sorted(names)})
    known = (place for place, names in enumerate(candidates) if wanted.known(names.values()) > 1)
    fullest = max(len(cells) for _, cells in head)
    full = (place for place, (_, cells) in enumerate(head) if 2 * len(cells) >= fullest)
    place = next(chain(known, full))
    return place, candidates[place]


def _fault(value: _Value, name: str) -> str:
    """What is wrong with a cell: a formula without its value, or what a spreadsheet has made of an id."""
    match value:
        case _NotCalculated():
            return "a formula that was not calculated; open the workbook in a spreadsheet program and save it again"
        case bool():
            kind = "true or false"
        case int() | float() if abs(value) >= _EXACT:
            kind = "a number of 16 digits or more"
        case float():
            kind = "a number with decimals"
        case date() | time() | timedelta():
            kind = "a date or a time"
        case _:
            return ""
    ways = "(16 digits become 15 and a zero, 5-12 a date), so write the column as text and export it again"
    return f"{name} is {kind}; spreadsheets change ids whose column is not text {ways}" if name in IDS else ""


def _text(value: _Value) -> str | None:
    """A value as text: a number with the digits that Excel keeps, a date with its time unless it is midnight."""
    match value:
        case _Error():
            return None
        case bool():
            return str(value).upper()
        case float():
            return format(value, ".15g")
        case time():
            return (datetime.combine(date.min, value) + _HALF_A_SECOND).time().isoformat("seconds")
        case timedelta():
            minutes, seconds = divmod(round(value.total_seconds()), 60)
            return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"
        case datetime():
            return (value.replace(tzinfo=None) + _HALF_A_SECOND).isoformat("T", "seconds").removesuffix("T00:00:00")
    return str(value)


@contextmanager
def _open_sheet(path: Path, name: str | None, limits: Limits) -> Iterator[tuple[_Sheet, str]]:
    """Open a sheet: the one of this name in any case, or the only visible one that has values; with its place."""
    with damage(path), Archive(path, limits.size) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of openpyxl repeat values of cells
        reader = _opened(archive, limits)
        # Programs that write formulas without values ask for a calculation; Excel takes this away when it has done it.
        main = archive.read(reader.parser.workbook_part_name)
        asked = re.search(rb'\bfullCalcOnLoad="(1|true)"', main) is not None
        sheets = [
            _Sheet(reader, sheet, part.target, limits, asked)
            for sheet, part in reader.parser.find_sheets()
            if part.Type.endswith("/worksheet") and part.target in reader.valid_files
        ]
        listed = ", ".join(sheet.name for sheet in sheets) or "none"
        if name is not None:
            found = [sheet for sheet in sheets if sheet.name.strip().lower() == name.strip().lower()][:1]
        else:
            found = [sheet for sheet in sheets if sheet.visible]
            found = [sheet for sheet in found if len(found) == 1 or any(sheet.rows())]
        if not found:
            fault = (
                "no visible sheet has data (sheets: {})" if name is None else f"no sheet {name}; the workbook has {{}}"
            )
            raise InputError(f"{path}: {fault.format(listed)}")
        if len(found) > 1:
            names = ", ".join(sheet.name for sheet in found)
            ways = "name one (`ingest --sheet`), or keep one in the file"
            raise InputError(f"{path}: {len(found)} sheets have data ({names}); {ways}")
        yield found[0], f"{1 + sheets.index(found[0])} of {len(sheets)}"


def _opened(archive: Archive, limits: Limits) -> ExcelReader:
    """Read the parts that a table needs, without properties, names and theme, in which a fault does no harm."""
    names = archive.namelist()
    if "xl/workbook.bin" in names:
        raise InputError(f"{archive.path}: a binary workbook (XLSB); save it as XLSX, or its sheet as CSV in UTF-8")
    if "[Content_Types].xml" not in names:
        kind = "a workbook in OpenDocument format" if "content.xml" in names else "a ZIP archive that is no workbook"
        raise InputError(f"{archive.path}: {kind}; save the table as XLSX, or as CSV in UTF-8")
    with archive.path.open("rb") as file:
        reader = ExcelReader(file, read_only=True, data_only=True, keep_links=False)
    reader.archive, reader.valid_files = archive, names
    reader.read_manifest()
    texts = reader.package.find(SHARED_STRINGS)
    if texts is not None and texts.PartName[1:] in names:  # some writers name parts that they leave out
        archive.held = lambda elements, size: limits.take(0, _CELLS * elements, size)
        reader.read_strings()
        archive.held = None
    reader.read_workbook()
    listed = reader.parser.sheets
    if len(listed) > MAX_SHEETS or any(len(sheet.name) > MAX_NAME for sheet in listed):
        raise damaged(archive.path, f"more than {MAX_SHEETS} sheets, or a name of more than {MAX_NAME} letters")
    apply_stylesheet(archive, reader.wb)
    return reader


class _Sheet(WorkSheetParser):  # type: ignore[misc]
    """A sheet. Read-only sheets of openpyxl leave out merged cells, hidden rows, and which formulas have no value.

    Attributes:
        hidden_rows: of the rows read so far.
        merged: ranges of merged cells that span rows: first row, last row, column; known when all rows are read.
    """

    def __init__(self, reader: ExcelReader, sheet: Any, part: str, limits: Limits, asked: bool) -> None:
        book = reader.wb
        dates = {n for n, style in enumerate(book._cell_styles) if style.numFmtId in _EAST_ASIAN_DATES}
        formats = {"date_formats": dates.union(book._date_formats), "timedelta_formats": book._timedelta_formats}
        super().__init__(None, reader.shared_strings, data_only=True, epoch=book.epoch, **formats)
        self.name, self.visible = sheet.name, sheet.state == "visible"
        self._archive, self._part, self._longest, self._asked = reader.archive, part, limits.longest, asked
        self._styles, self._formats = book._cell_styles, book._number_formats
        self._zeros: dict[int, int] = {}
        self.hidden_rows = 0
        self.merged: list[tuple[int, int, int]] = []

    def rows(self) -> Iterator[_Row]:
        """The rows with values, in the order of the file."""
        before = self.row_counter = self.hidden_rows = seen = 0
        for place, (_, element) in enumerate(iterparse(self._archive.open(self._part))):
            if place - seen > MAX_ELEMENTS:  # they are held until the row ends
                raise damaged(self._archive.path, f"a row of more than {MAX_ELEMENTS} elements")
            if element.tag == ROW_TAG:
                number, cells = self.parse_row(element)
                values = {cell["column"]: cell["value"] for cell in cells if not _blank(cell["value"])}
                if not before < number <= MAX_ROWS or max(values, default=0) > MAX_COLUMNS:
                    wrong = f"rows out of order, more than {MAX_ROWS}, or with more than {MAX_COLUMNS} columns"
                    raise damaged(self._archive.path, wrong)
                if sum(len(value) for value in values.values() if isinstance(value, str)) > self._longest:
                    raise InputError(
                        f"{self._archive.path}: a row of more than {self._longest >> 20} MiB; split its texts"
                    )
                hidden = self.row_dimensions.pop(str(number), {}).get("hidden") in {"1", "true"}
                before, seen = number, place
                if values:
                    self.hidden_rows += hidden
                    yield number, values
                element.clear()
            elif element.tag == MERGE_TAG:
                self._merge(element)

    def parse_cell(self, element: Any) -> dict[str, Any]:
        """A cell with its `_Value`."""
        cell: dict[str, Any] = super().parse_cell(element)
        value, kind, stated = cell["value"], cell["data_type"], element.get("t")
        if element.find(FORMULA_TAG) is not None:
            # Writers that do not calculate leave the value out or empty, or write 0 and ask for a calculation.
            empty = value is None and (stated != "str" or element.find(VALUE_TAG) is None)
            if empty or (value == 0 and self._asked):
                return cell | {"value": _NotCalculated()}
        if stated == "s" and (element.findtext(VALUE_TAG) or "").startswith("-"):
            raise IndexError
        if kind == "e" and stated in {None, "n"}:  # a number that is formatted as a date and cannot be one
            value, kind = float(element.findtext(VALUE_TAG)), "n"
        if kind == "e":
            cell["value"] = _Error(value)
        elif isinstance(value, str):
            cell["value"] = unescape(value)
        elif kind == "n" and value is not None and abs(value) < _EXACT and value == int(value):
            style = cell["style_id"]
            if style not in self._zeros:  # a format of zeros only fills ids with zeros
                own = self._styles[style].numFmtId - BUILTIN_FORMATS_MAX_SIZE
                shown = self._formats[own].partition(";")[0] if own >= 0 else ""
                self._zeros[style] = len(shown) if re.fullmatch("0{2,}", shown) else 0
            cell["value"] = str(int(value)).zfill(self._zeros[style]) if self._zeros[style] else int(value)
        elif kind == "n":
            cell["value"] = value
        return cell

    def _merge(self, element: Any) -> None:
        spans: Counter[int] = Counter()
        for one in element:
            column, first, _, last = range_boundaries(one.get("ref"))
            spans[column] += last - first + 1
            if not 0 < first <= last <= MAX_ROWS or spans[column] > MAX_ROWS:
                raise damaged(self._archive.path, "merged cells that overlap")
            if first < last:
                self.merged.append((first, last, column))


def _blank(value: _Value | None) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
