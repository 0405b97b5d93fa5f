"""The rows of a text with commas, semicolons or tabs, with checks of its quotes."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cxrreport.errors import InputError

_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""Delimiters, with their names for messages."""
_LINE_END = re.compile("\r\n|\r|\n")


class Lines:
    """The lines of a text, with their ends: carriage return, line feed, or both.

    Args:
        path: of the table.
        text: its text.
        longest: characters of a row.
    """

    def __init__(self, path: Path, text: str, longest: int) -> None:
        self._path = path
        self._longest = longest
        self._text = text
        self._position = self._row = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._position == len(self._text):
            raise StopIteration
        found = _LINE_END.search(self._text, self._position)
        start, self._position = self._position, found.end() if found else len(self._text)
        if self._position - self._row > self._longest:
            raise InputError(f"{self._path}: a row of more than {self._longest >> 20} MiB; check its quotes")
        return self._text[start : self._position]

    def begin_row(self) -> None:
        """The next line begins a row."""
        self._row = self._position


def csv_rows(path: Path, text: str, longest: int) -> tuple[str, Iterator[tuple[int, list[str]]]]:
    """The name of the delimiter, and the rows that are not blank, each with the number of its first line.

    Raises:
        InputError: while the rows are read; a quote is unbalanced.
    """
    delimiter, start = _delimiter(Lines(path, text, longest))
    return _NAMES[delimiter], _rows(path, text, longest, delimiter, start)


def _rows(path: Path, text: str, longest: int, delimiter: str, start: int) -> Iterator[tuple[int, list[str]]]:
    source = Lines(path, text, longest)
    lines = csv.reader(source, delimiter=delimiter, strict=True, skipinitialspace=True)
    # Of the process, 128 KiB by default. It is not set back: another table may be open. `source` has its own limit.
    csv.field_size_limit(max(csv.field_size_limit(), longest))
    number, columns = 1, 0
    ids: set[str] = set()
    suspects: list[tuple[int, str]] = []
    try:
        for cells in lines:
            if cells and number > start:
                columns = columns or len(cells)
                ids.add(cells[0].strip())
                if lines.line_num > number:
                    suspects += [(number, row_id) for row_id in _ids_within(cells, delimiter, columns)]
                yield number, cells
            source.begin_row()
            number = lines.line_num + 1
        number = next((line for line, row_id in suspects if row_id not in ids), 0)
        if number:
            raise csv.Error
    except csv.Error:
        detail = "a quote that is not closed, or text after a closing quote"
        raise InputError(f"{path}, line {number}: not a CSV file ({detail}); check the quotes of this line") from None


def _delimiter(source: Lines) -> tuple[str, int]:
    """The delimiter of a CSV file, and how many lines come before its header (Excel's `sep=;`)."""
    lines = (line for line in source if line.strip())
    first = next(lines, "").strip("\r\n")
    if re.fullmatch(r"sep=[,;\t]", first, re.I):
        return first[-1], 1
    unquoted = re.sub(r'"[^"]*"', "", first)
    return max(_NAMES, key=unquoted.count), 0


def _ids_within(cells: Sequence[str], delimiter: str, columns: int) -> list[str]:
    """First cells of lines within a cell that look like rows: if no row has this id, a quote was not closed."""
    shape = _shape(cells[0].strip())
    if "0" not in shape:
        return []
    lines = [line for cell in cells for line in cell.splitlines()[1:] if line.count(delimiter) >= columns - 1]
    found = [line.partition(delimiter)[0].strip(' "') for line in lines]
    return [row_id for row_id in found if _shape(row_id) == shape]


def _shape(text: str) -> str:
    return re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "0", text))
