"""Which sheet of a workbook is read, and how."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cxrreport.errors import InputError
from cxrreport.storage.table_formats.workbook.package import Package, reference
from cxrreport.storage.table_formats.workbook.rows import Rows, Sheet, shared_strings
from cxrreport.storage.table_formats.workbook.values import Format, format_of

MAX_SHEETS, MAX_NAME = 1000, 255
MAX_FORMATS = 1 << 16
_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_SEARCHED = 64 << 20  # of a compound file, for the name of its stream
_TRUE = frozenset({"1", "true"})


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    part: str
    visible: bool


def refused_kind(data: bytes, path: Path) -> str:
    """What a file is instead of a workbook that can be read or a text; empty if it may be either.

    Args:
        data: its first bytes.
        path: the file.
    """
    if data.startswith(_COMPOUND):
        with path.open("rb") as file:
            encrypted = "EncryptedPackage".encode("utf-16-le") in file.read(_SEARCHED)
        return (
            "a workbook with a password; save it without one" if encrypted else "a workbook of Excel 97 to 2003 (XLS)"
        )
    if re.match(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|\?xml|\?mso|table|head|meta)", data, re.I):
        return "a page of HTML or XML, whatever its name says"
    return ""


@contextmanager
def open_sheet(
    path: Path, name: str | None, *, most: int, longest: int, take: Callable[[int, int, int], None]
) -> Iterator[Sheet]:
    """Open a sheet: the one of this name, or the only visible one that has values.

    Args:
        path: a ZIP archive.
        name: of the sheet, in any case.
        most: bytes of XML.
        longest: characters of a row.
        take: called with numbers of rows, cells and characters that are held while the sheet is open.

    Raises:
        InputError: it is no workbook, a damaged or too large one, or several sheets have values.
    """
    with Package(path, most) as package:
        main = _main_part(package)
        related = package.related(main)
        book = _Book(package, main, related)
        entry = _chosen(book, name, longest)
        parts = dict(related.values())
        # Some writers name parts that they leave out.
        texts, styles = parts.get("sharedStrings", ""), parts.get("styles", "")
        strings = shared_strings(package, texts, longest, take) if texts in package else []
        formats = _formats(package, styles) if styles in package else []
        sheet = Sheet(entry.name, [one.name for one in book.entries], iter(()))
        sheet.rows = book.rows(strings, formats, longest).read(sheet, entry.part)
        yield sheet


class _Book:
    """The sheets of a workbook, and how it counts days and formulas."""

    def __init__(self, package: Package, main: str, related: Mapping[str, tuple[str, str]]) -> None:
        self.package = package
        self.entries: list[_Entry] = []
        self.epoch_1904 = self.uncalculated = False
        self._related = related
        self._opened = False
        package.read(main, self._start)
        if not self._opened:
            raise _no_workbook(package)

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._opened = self._opened or tag == "workbook"
        if tag == "sheet":
            kind, part = self._related.get(reference(attributes), ("", ""))
            name = attributes.get("name", "")
            if len(self.entries) == MAX_SHEETS or len(name) > MAX_NAME:
                raise self.package.damaged(f"more than {MAX_SHEETS} sheets, or a name of more than {MAX_NAME} letters")
            if kind == "worksheet":  # not a chart, a dialog or a macro
                self.entries.append(_Entry(name, part, attributes.get("state", "visible") == "visible"))
        elif tag == "workbookPr":
            self.epoch_1904 = attributes.get("date1904") in _TRUE
        elif tag == "calcPr":
            # Programs that write formulas without values ask for this; Excel takes it away when it has calculated.
            self.uncalculated = attributes.get("fullCalcOnLoad") in _TRUE

    def rows(self, strings: Sequence[str] | None, formats: Sequence[Format], longest: int) -> Rows:
        """A reader of a sheet; arguments as those of `Rows`."""
        return Rows(
            self.package,
            strings,
            formats,
            longest,
            epoch_1904=self.epoch_1904,
            uncalculated=self.uncalculated,
        )


def _main_part(package: Package) -> str:
    found = [part for kind, part in package.related("").values() if kind == "officeDocument"]
    main = found[0] if found else "xl/workbook.xml"
    if main.lower().endswith(".bin"):
        raise InputError(f"{package.path}: a binary workbook (XLSB); save it as XLSX, or its sheet as CSV in UTF-8")
    if main not in package:
        raise _no_workbook(package)
    return main


def _no_workbook(package: Package) -> InputError:
    kind = "a workbook in OpenDocument format" if "content.xml" in package else "a ZIP archive that is no workbook"
    return InputError(f"{package.path}: {kind}; save the table as XLSX, or as CSV in UTF-8")


def _chosen(book: _Book, name: str | None, longest: int) -> _Entry:
    path = book.package.path
    listed = ", ".join(entry.name for entry in book.entries)
    if name is not None:
        if found := [entry for entry in book.entries if entry.name.strip().lower() == name.strip().lower()]:
            return found[0]
        raise InputError(f"{path}: no sheet {name}; the workbook has {listed or 'none'}")
    visible = [entry for entry in book.entries if entry.visible]
    if len(visible) > 1:
        visible = [entry for entry in visible if _has_values(book, entry, longest)]
    if len(visible) > 1:
        names = ", ".join(entry.name for entry in visible)
        raise InputError(
            f"{path}: {len(visible)} sheets have data ({names}); name one (`ingest --sheet`), or keep one in the file"
        )
    if not visible:
        raise InputError(f"{path}: no visible sheet has data (sheets: {listed or 'none'})")
    return visible[0]


def _has_values(book: _Book, entry: _Entry, longest: int) -> bool:
    return any(book.rows(None, [], longest).read(Sheet(entry.name, [], iter(())), entry.part))


def _formats(package: Package, part: str) -> list[Format]:
    """The formats that cells refer to by number."""
    codes: dict[int, str] = {}
    numbers: list[int] = []
    in_cells = False

    def start(tag: str, attributes: Mapping[str, str]) -> None:
        nonlocal in_cells
        if tag == "numFmt":
            codes[int(attributes.get("numFmtId", 0))] = attributes.get("formatCode", "")
        elif tag in {"cellXfs", "cellStyleXfs", "dxfs", "cellStyles"}:
            in_cells = tag == "cellXfs"
        elif tag == "xf" and in_cells:
            numbers.append(int(attributes.get("numFmtId", 0)))
        if len(codes) + len(numbers) > 2 * MAX_FORMATS:
            raise package.damaged(f"more than {MAX_FORMATS} formats")

    package.read(part, start)
    known = {number: format_of(number, codes) for number in set(numbers)}
    return [known[number] for number in numbers]
