"""The archive of a workbook within limits, which openpyxl does not have."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree
from xml.parsers import expat

from cxrreport.errors import InputError

MAX_TREE, MAX_TAGS = 16 << 20, 1 << 19
"""Bytes and tags of a part that openpyxl holds as a tree: all but sheets and their texts."""
MAX_TAG, MAX_DEPTH = 1 << 20, 1000
"""Bytes of a tag or comment, which expat before 2.6 reads again with each piece, and elements within each other."""
_PASSES = 2  # a sheet is read to see whether it has values, and as a table
_STRICT = {
    b"http://purl.oclc.org/ooxml/spreadsheetml/main": b"http://schemas.openxmlformats.org/spreadsheetml/2006/main",
    b"http://purl.oclc.org/ooxml/officeDocument": b"http://schemas.openxmlformats.org/officeDocument/2006",
}
"""Namespaces of strict workbooks, and those of the same elements in others; openpyxl knows only these."""


class Archive(zipfile.ZipFile):
    """An archive that refuses parts which would take much memory or time, each with an `InputError`.

    `zipfile` never unpacks more of a part than the archive states, so this can be checked before.

    What is held is counted before the system's limit on memory ends it: close to that limit, allocations become slow.

    Args:
        path: the file.
        most: bytes of a part that is read as a stream.

    Attributes:
        held: called with a number of elements and bytes of the parts that are read, if they are held.
    """

    held: Callable[[int, int], None] | None = None

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(path)
        self.path, self._most, self._left = path, most, _PASSES * most
        # Some writers have backslashes in names.
        self.NameToInfo = {name.replace("\\", "/"): info for name, info in self.NameToInfo.items()}

    def namelist(self) -> list[str]:
        """Names of the parts."""
        return list(self.NameToInfo)

    def read(self, name: Any, *_: Any) -> bytes:
        """A part that becomes a tree."""
        self._refuse_above(MAX_TREE, self.getinfo(name).file_size)
        data: bytes = self.open(name).read()
        if data.count(b"<") > MAX_TAGS:
            raise damaged(self.path, f"more than {MAX_TAGS} tags besides those of sheets")
        return data

    def open(self, name: Any, *_: Any, **__: Any) -> Any:
        """A part as a stream."""
        info = self.getinfo(name)
        if info.flag_bits & 1:
            raise InputError(f"{self.path}: the archive has a password; save the workbook without one")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others take memory as they state
            raise damaged(self.path, "compressed in a way that workbooks are not")
        self._refuse_above(self._most, info.file_size)
        return _Part(super().open(info), self)

    def count(self, size: int) -> None:
        """Count bytes that were unpacked."""
        self._left -= size
        self._refuse_above(self._most, 0 if self._left >= 0 else self._most + 1)

    def _refuse_above(self, limit: int, size: int) -> None:
        if size > limit:
            raise InputError(f"{self.path}: more than {limit >> 20} MiB of text; split it, or write it as Parquet")


class _Part(io.RawIOBase):
    """A part in which expat looks for long tags, deep nesting and a document type while it is read."""

    def __init__(self, file: IO[bytes], archive: Archive) -> None:
        self._file, self._archive = file, archive
        self._given = self._started = self._depth = 0
        self._check = expat.ParserCreate()
        self._check.StartDoctypeDeclHandler = self._refuse
        self._check.StartElementHandler = self._start
        self._check.EndElementHandler = self._end

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        for strict, known in _STRICT.items() if not self._given else ():
            chunk = chunk.replace(strict, known)
        self._given += len(chunk)
        self._archive.count(len(chunk))
        before = self._started
        self._check.Parse(chunk, not chunk)
        if self._archive.held:
            self._archive.held(self._started - before, len(chunk))
        if self._depth > MAX_DEPTH:
            raise damaged(self._archive.path, "its elements nest too deep")
        if size >= 0 and self._given - self._check.CurrentByteIndex > MAX_TAG:
            raise damaged(self._archive.path, f"a tag of more than {MAX_TAG >> 20} MiB")
        return chunk

    def _start(self, _name: str, _attributes: dict[str, str]) -> None:
        self._started += 1
        self._depth += 1

    def _end(self, _name: str) -> None:
        self._depth -= 1

    def _refuse(self, *_: Any) -> None:
        raise damaged(self._archive.path, "it declares a document type, which no workbook does")


def damaged(path: Path, detail: str) -> InputError:
    """The error for a file that is no workbook after all."""
    return InputError(f"{path}: a damaged workbook ({detail}); open it in a spreadsheet program and save it again")


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Turn what zipfile, parsers and openpyxl raise on a damaged workbook, which can be anything, into `damaged`."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except (expat.ExpatError, ElementTree.ParseError) as error:
        if error.code == expat.errors.codes[expat.errors.XML_ERROR_NO_MEMORY]:
            raise MemoryError from None
        raise damaged(path, f"XML: {expat.ErrorString(error.code)}") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise damaged(path, type(error).__name__) from None
