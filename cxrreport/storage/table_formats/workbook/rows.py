"""The rows of a sheet, and the texts that its cells refer to."""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from cxrreport.errors import InputError
from cxrreport.storage.table_formats.workbook.package import Package
from cxrreport.storage.table_formats.workbook.values import DIGITS, EXACT, Format, date_text, iso, unescaped

MAX_ROWS, MAX_COLUMNS = 1 << 20, 1 << 14
"""Excel's own limits."""
_TRUE = frozenset({"1", "true"})
_GENERAL = Format()


class Kind(Enum):
    """What a cell holds."""

    TEXT = "a text"
    WHOLE = "a whole number"
    FRACTION = "a number with decimals"
    LONG = "a number of 16 digits or more"
    DATE = "a date or a time"
    BOOLEAN = "true or false"
    ERROR = "an error"
    NOT_CALCULATED = "a formula that was not calculated"


class Cell(NamedTuple):
    """A cell with its value as text; of an error, its name."""

    text: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Row:
    """A row with at least one value: its number in the sheet, and cells by column, from 0."""

    number: int
    cells: Mapping[int, Cell]


@dataclass(slots=True)
class Sheet:
    """An open sheet.

    Args:
        name: of the sheet.
        sheets: names of all sheets of the workbook.
        rows: those with a value, in the order of the file; to be read once.
        hidden_rows: of those read so far.
        merged: ranges of merged cells that span rows, known when all rows are read: first row, last row, column.
    """

    name: str
    sheets: Sequence[str]
    rows: Iterator[Row]
    hidden_rows: int = 0
    merged: list[tuple[int, int, int]] = field(default_factory=list)


class _Text:
    """Gathers the text of the elements `t` and `v`; phonetic guides are left out.

    Args:
        package: which is read.
        longest: characters until `size` is set back.
    """

    def __init__(self, package: Package, longest: int) -> None:
        self.parts: list[str] = []
        self.size = 0
        self._package = package
        self._longest = longest
        self.open = False
        self._phonetic = False

    def start(self, tag: str) -> None:
        """An element begins within a cell or a shared text."""
        self._phonetic = self._phonetic or tag == "rPh"
        self.open = tag == "t" and not self._phonetic

    def end(self, tag: str) -> None:
        """It ends."""
        self._phonetic = self._phonetic and tag != "rPh"
        self.open = False

    def add(self, text: str) -> None:
        """Text between tags."""
        if self.open:
            self.parts.append(text)
            self.size += len(text)
            if self.size > self._longest:
                raise InputError(f"{self._package.path}: a row of more than {self._longest >> 20} MiB; split its texts")


def shared_strings(package: Package, part: str, longest: int, take: Callable[[int, int, int], None]) -> list[str]:
    """The texts that cells refer to by number. Runs of formatted text are joined."""
    strings: list[str] = []
    text = _Text(package, longest)

    def start(tag: str, _: Mapping[str, str]) -> None:
        if tag == "si":
            text.parts, text.size = [], 0
        else:
            text.start(tag)

    def end(tag: str) -> None:
        if tag == "si":
            strings.append(unescaped("".join(text.parts)))
            take(0, 1, len(strings[-1]))
        else:
            text.end(tag)

    for _ in package.stream(part, start, end, text.add):
        pass
    return strings


class Rows:
    """Reads the rows of one sheet.

    Args:
        package: the workbook.
        strings: its shared texts; `None` if only the presence of values matters.
        formats: formats of numbers that cells refer to.
        longest: characters of a row.
        epoch_1904: days are counted from 1904.
        uncalculated: the workbook asks to be calculated when it is opened.
    """

    def __init__(
        self,
        package: Package,
        strings: Sequence[str] | None,
        formats: Sequence[Format],
        longest: int,
        *,
        epoch_1904: bool,
        uncalculated: bool,
    ) -> None:
        self._package = package
        self._strings = strings
        self._formats = formats
        self._epoch_1904 = epoch_1904
        self._uncalculated = uncalculated
        self._text = _Text(package, longest)
        self._columns: dict[str, int] = {}
        self._spans: Counter[int] = Counter()
        self._ready: list[Row] = []
        self._cells: dict[int, Cell] = {}
        self._row = 0
        self._column = -1
        self._type = self._style = ""
        self._formula = self._value = self._hidden = False

    def read(self, sheet: Sheet, part: str) -> Iterator[Row]:
        """Read the rows with values, and count and list in `sheet` what is not in them."""
        self._sheet = sheet
        for _ in self._package.stream(part, self._start, self._end, self._text.add):
            yield from self._ready
            self._ready.clear()

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag == "v":  # most elements are values and cells
            self._value = self._text.open = True
        elif tag == "c":
            reference = attributes.get("r")
            self._column = self._column_of(reference) if reference else self._column + 1
            self._type = attributes.get("t", "n")
            self._style = attributes.get("s", "")
            self._formula = self._value = False
            self._text.parts = []
        elif tag == "row":
            before, number = self._row, attributes.get("r")
            self._row = int(number) if number else before + 1
            if not before < self._row <= MAX_ROWS:
                raise self._package.damaged(f"rows out of order, or more than {MAX_ROWS}")
            self._hidden = attributes.get("hidden") in _TRUE
            self._cells, self._column, self._text.size = {}, -1, 0
        elif tag == "mergeCell":
            self._merge(attributes.get("ref", ""))
        else:
            self._formula = self._formula or tag == "f"
            self._value = self._value or tag == "is"
            self._text.start(tag)

    def _end(self, tag: str) -> None:
        if tag == "v":
            self._text.open = False
        elif tag == "c":
            cell = self._cell()
            if cell.text and not cell.text.isspace():
                self._cells[self._column] = cell
        elif tag == "row":
            if self._cells:
                self._ready.append(Row(self._row, self._cells))
                self._sheet.hidden_rows += self._hidden
        else:
            self._text.end(tag)

    def _cell(self) -> Cell:
        """The cell that ends."""
        text = "".join(self._text.parts)
        # Writers that do not calculate leave the value out or empty, or write 0 and ask for a calculation.
        missing = not self._value or (not text and self._type != "str") or (self._uncalculated and text == "0")
        if self._formula and missing:
            return Cell("=", Kind.NOT_CALCULATED)
        if self._strings is None or not text:
            return Cell(text, Kind.TEXT)
        match self._type:
            case "s":
                return Cell(self._strings[_index(text)], Kind.TEXT)
            case "str" | "inlineStr":
                return Cell(unescaped(text), Kind.TEXT)
            case "b":
                return Cell("TRUE" if text.strip() in _TRUE else "FALSE", Kind.BOOLEAN)
            case "e":
                return Cell(text, Kind.ERROR)
            case "d":
                return Cell(iso(datetime.fromisoformat(text.strip())), Kind.DATE)
        shown = self._formats[_index(self._style)] if self._style and self._formats else _GENERAL
        value = float(text)
        if not math.isfinite(value):
            raise ValueError
        if shown.shown != "number" and (when := date_text(value, shown, self._epoch_1904)):
            return Cell(when, Kind.DATE)
        if abs(value) >= EXACT:
            return Cell(text.strip(), Kind.LONG)
        if value.is_integer():
            return Cell(str(int(value)).zfill(shown.zeros), Kind.WHOLE)
        return Cell(format(value, f".{DIGITS}g"), Kind.FRACTION)

    def _column_of(self, reference: str) -> int:
        """The column of a cell, from 0."""
        letters = reference.rstrip("0123456789")
        column = self._columns.get(letters)
        if column is None:
            column = 0
            for letter in letters.upper()[:4]:
                column = column * 26 + "ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(letter) + 1
            if not 0 < column <= MAX_COLUMNS:
                raise self._package.damaged(f"more than {MAX_COLUMNS} columns")
            self._columns[letters] = column = column - 1
        return column

    def _merge(self, cells: str) -> None:
        """Note merged cells that span rows."""
        first, _, last = cells.partition(":")
        column = self._column_of(first)
        rows = [int(place.lstrip(string.ascii_letters)) for place in (first, last or first)]
        self._spans[column] += rows[1] - rows[0] + 1
        if not 0 < rows[0] <= rows[1] <= MAX_ROWS or self._spans[column] > MAX_ROWS:
            raise self._package.damaged("merged cells that overlap")
        if rows[0] < rows[1]:
            self._sheet.merged.append((rows[0], rows[1], column))


def _index(text: str) -> int:
    """A place in a list, which is not negative."""
    if not text.isdecimal():
        raise ValueError
    return int(text)
