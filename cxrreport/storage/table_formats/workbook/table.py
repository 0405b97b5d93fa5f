"""The table in a sheet: where its header is, which columns are read, and what is wrong with their cells."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from cxrreport.errors import InputError
from cxrreport.storage.table_formats.column_names import IDS, WantedColumns
from cxrreport.storage.table_formats.messages import say_once, shortened
from cxrreport.storage.table_formats.workbook.reader import open_sheet
from cxrreport.storage.table_formats.workbook.rows import Cell, Kind, Row

_TITLES = 20
"""Rows with values among which the header is: exports have titles, dates and filters above it."""
_OF_IDS = frozenset({Kind.TEXT, Kind.WHOLE, Kind.ERROR})
Values = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a workbook is read.

    Args:
        size: bytes of XML.
        longest: characters of a row.
        rows: rows below the header; `None` for all.
        take: called with numbers of rows, cells and characters before they are kept.
    """

    size: int
    longest: int
    rows: int | None
    take: Callable[[int, int, int], None]


@dataclass(frozen=True, slots=True)
class Found:
    """The table of a sheet, as texts.

    Args:
        names: its columns with the names under which they are read.
        rows: one dict per row. Cells without value and errors are `None`.
        kind: the format with the sheet, for a message.
        note: about the rows, for the same message.
    """

    names: Mapping[str, str]
    rows: list[Values]
    kind: str
    note: str


def read_workbook(path: Path, wanted: WantedColumns, sheet: str | None, limits: Limits) -> Found:
    """Read the table of a sheet.

    Args:
        path: a workbook.
        wanted: the columns.
        sheet: name of the sheet; `None` if only one has data.
        limits: how much is read.

    Raises:
        InputError: as `open_sheet`; a formula has no value, or a cell is no id where one is needed.
    """
    take = limits.take
    with open_sheet(path, sheet, most=limits.size, longest=limits.longest, take=take) as found:
        where = f"{path}, sheet {found.name}"
        head = list(islice(found.rows, _TITLES))
        if not head:
            raise InputError(f"{where}: the sheet has no data")
        place, header = _header(head, wanted)
        names = wanted.of(header.values())
        columns = {column: names[name] for column, name in header.items() if name in names}
        rows: dict[int, Values] = {}
        errors: Counter[str] = Counter()
        for row in chain(head[place + 1 :], found.rows):
            if len(rows) == limits.rows:
                break
            cells = [(columns[column], cell, column) for column, cell in row.cells.items() if column in columns]
            if not cells:
                continue
            take(1, len(columns), sum(len(cell.text) for _, cell, _ in cells))
            values: Values = dict.fromkeys(columns.values())
            for name, cell, column in cells:
                if (kind := cell.kind) is not Kind.TEXT:
                    _check(cell, name, f"{where}, cell {_letters(column)}{row.number}")
                if kind is Kind.ERROR:
                    errors[f"{cell.text} in column {header[column]}"] += 1
                else:
                    values[name] = cell.text
            rows[row.number] = values
        _fill(rows, found.merged, columns, limits)
    number = 1 + list(found.sheets).index(found.name)
    place_of = f"sheet {shortened(found.name)} ({number} of {len(found.sheets)}), header in row {head[place].number}"
    if errors:
        listed = ", ".join(f"{count:,} {error}" for error, count in errors.most_common(5))
        say_once(path, f"sheet {found.name}: cells with errors are read as empty: {listed}", logging.WARNING)
    hidden = f" ({found.hidden_rows:,} hidden)" if found.hidden_rows else ""
    return Found(names, list(rows.values()), f"workbook, {place_of}", hidden)


def _header(head: Sequence[Row], wanted: WantedColumns) -> tuple[int, dict[int, str]]:
    """The place of the header and its names by column.

    It is the first row with two names that the reader knows, otherwise the first that has at least half as many cells
    as the fullest. A cell without a name has that of the cell above it, with which it then is merged.
    """
    candidates = []
    above = Row(0, {})
    for row in head:
        cells = {**above.cells, **row.cells} if row.number == above.number + 1 else row.cells
        candidates.append({column: cells[column].text for column in sorted(cells)})
        above = row
    for place, names in enumerate(candidates):
        if wanted.known(names.values()) > 1:
            return place, names
    fullest = max(len(row.cells) for row in head)
    place = next(place for place, row in enumerate(head) if 2 * len(row.cells) >= fullest)
    return place, candidates[place]


def _check(cell: Cell, name: str, where: str) -> None:
    """Refuse a cell without its value, and what a spreadsheet has made of an id."""
    if cell.kind is Kind.NOT_CALCULATED:
        raise InputError(f"{where}: {cell.kind.value}; open the workbook in a spreadsheet program and save it again")
    if name in IDS and cell.kind not in _OF_IDS:
        raise InputError(
            f"{where}: {name} is {cell.kind.value}; spreadsheets change ids whose column is not text (16 digits become "
            "15 and a zero, 5-12 a date), so write the column as text and export it again"
        )


def _fill(
    rows: Mapping[int, Values], merged: Iterable[tuple[int, int, int]], columns: Mapping[int, str], limits: Limits
) -> None:
    """Give the value of merged cells to all of their rows."""
    for first, last, column in merged:
        name = columns.get(column)
        value = rows[first][name] if name is not None and first in rows else None
        if name is None or value is None:
            continue
        for number in range(first + 1, last + 1):
            if number in rows and rows[number][name] is None:
                limits.take(0, 0, len(value))
                rows[number][name] = value


def _letters(column: int) -> str:
    """The letters of a column, from 0: `A`, `AB`."""
    return (_letters(column // 26 - 1) if column >= 26 else "") + chr(ord("A") + column % 26)
