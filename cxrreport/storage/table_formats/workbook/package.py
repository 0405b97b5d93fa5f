"""The parts of a workbook: members of a ZIP archive that name each other, parsed as a stream."""

from __future__ import annotations

import posixpath
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote
from xml.parsers import expat

from cxrreport.errors import InputError

MAIN = (
    "http://schemas.openxmlformats.org/spreadsheetml/2006/main",
    "http://purl.oclc.org/ooxml/spreadsheetml/main",  # strict
)
"""Namespaces of workbooks and sheets."""
MAX_PART = 64 << 20
"""Largest part besides sheets and their texts, bytes."""
MAX_TAG = 1 << 20
"""Longest tag or comment, bytes."""
MAX_DEPTH = 100
"""Most elements within each other."""
_RELATIONSHIPS = ("http://schemas.openxmlformats.org/package/2006/relationships",)
_CHUNK = 1 << 16
_KNOWN_NAMES = 1000
_ENCRYPTED = 1  # a bit of the flags of a member
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)

Start = Callable[[str, Mapping[str, str]], None]
"""Called with the name of an element and its attributes."""


class Package:
    """An open archive.

    Args:
        path: the file.
        most: bytes that may be unpacked, all parts together.

    Raises:
        InputError: it is no archive, or a damaged one.
    """

    def __init__(self, path: Path, most: int) -> None:
        self.path = path
        self._most = most
        self._unpacked = 0
        with self.damage():
            self._archive = zipfile.ZipFile(path)
        # Names of parts are the same in any case; some writers use backslashes.
        self._members = {info.filename.replace("\\", "/").lower(): info for info in self._archive.infolist()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()

    def __contains__(self, part: str) -> bool:
        return part.lower() in self._members

    @contextmanager
    def damage(self) -> Iterator[None]:
        """Turn what parsers raise on a damaged archive into an `InputError`."""
        try:
            yield
        except expat.ExpatError as error:
            if error.code == expat.errors.codes[expat.errors.XML_ERROR_NO_MEMORY]:
                raise MemoryError from None
            raise self.damaged(f"XML, line {error.lineno}: {expat.ErrorString(error.code)}") from None
        except RecursionError:
            raise self.damaged("its elements nest too deep") from None
        except _DAMAGED as error:
            raise self.damaged(type(error).__name__) from None

    def damaged(self, detail: str) -> InputError:
        """The error for a file that is no workbook after all."""
        return InputError(
            f"{self.path}: a damaged workbook ({detail}); open it in a spreadsheet program and save it again"
        )

    def related(self, part: str) -> dict[str, tuple[str, str]]:
        """The parts that a part refers to: id of the reference to the kind of the part and its name."""
        folder, name = posixpath.split(part)
        listed = posixpath.join(folder, "_rels", f"{name}.rels")
        found: dict[str, tuple[str, str]] = {}

        def start(tag: str, attributes: Mapping[str, str]) -> None:
            if tag == "Relationship" and attributes.get("TargetMode") != "External":
                target = unquote(attributes.get("Target", "")).replace("\\", "/")
                whole = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
                found[attributes.get("Id", "")] = attributes.get("Type", "").rpartition("/")[2], whole

        if listed in self:
            self.read(listed, start, namespaces=_RELATIONSHIPS)
        return found

    def read(self, part: str, start: Start, *, namespaces: tuple[str, ...] = MAIN) -> None:
        """Parse a small part as a whole."""
        for _ in self.stream(part, start, most=MAX_PART, namespaces=namespaces):
            pass

    def stream(
        self,
        part: str,
        start: Start,
        end: Callable[[str], None] | None = None,
        text: Callable[[str], None] | None = None,
        *,
        most: int | None = None,
        namespaces: tuple[str, ...] = MAIN,
    ) -> Iterator[None]:
        """Parse a part, and yield after each piece of it.

        Args:
            part: its name.
            start: called for each element of `namespaces`, by its local name.
            end: the same at its end.
            text: called with text between tags.
            most: bytes of this part; `None` for those of all parts.
            namespaces: those of the elements for which it calls.

        Raises:
            InputError: the part is missing, damaged, too large, or declares a document type.
        """
        info = self._members.get(part.lower())
        if info is None:
            raise self.damaged(f"no part {part}")
        if info.flag_bits & _ENCRYPTED:
            raise InputError(f"{self.path}: the archive has a password; save the workbook without one")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others take memory as they state
            raise self.damaged(f"{part} is compressed in a way that workbooks are not")
        limit = self._most if most is None else min(most, self._most)
        # What the archive states is the most that is unpacked; what is unpacked is counted, parts may be read twice.
        if info.file_size > limit:
            raise self._too_large(limit)
        with self.damage(), self._archive.open(info) as file:
            parser = _parser(start, end, text, namespaces)
            parser.StartDoctypeDeclHandler = self._refuse_document_type
            given = 0
            while chunk := file.read(_CHUNK):
                given += len(chunk)
                self._unpacked += len(chunk)
                if self._unpacked > 2 * self._most:
                    raise self._too_large(self._most)
                parser.Parse(chunk, False)
                # A tag that has not ended is read again with each piece by expat before 2.6.
                if given - parser.CurrentByteIndex > MAX_TAG:
                    raise self.damaged(f"a tag of more than {MAX_TAG >> 20} MiB")
                yield
            parser.Parse(b"", True)
            yield

    def _refuse_document_type(self, *_: object) -> None:
        raise self.damaged("it declares a document type, which no workbook does")

    def _too_large(self, limit: int) -> InputError:
        return InputError(f"{self.path}: more than {limit >> 20} MiB of text; split it, or write it as Parquet")


def _parser(
    start: Start,
    end: Callable[[str], None] | None,
    text: Callable[[str], None] | None,
    namespaces: tuple[str, ...],
) -> expat.XMLParserType:
    """A parser that calls for the elements of some namespaces only, by their names without one.

    Elements that nest deeper than any of a workbook are a `RecursionError`: expat visits all open ones again and again.
    """
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.buffer_size = _CHUNK
    names = _LocalNames(namespaces)
    depth = 0

    def started(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise RecursionError
        if tag := names[name]:
            start(tag, attributes)

    def ended(name: str) -> None:
        nonlocal depth
        depth -= 1
        if end is not None and (tag := names[name]):
            end(tag)

    parser.StartElementHandler = started
    parser.EndElementHandler = ended
    if text is not None:
        parser.CharacterDataHandler = text
    return parser


class _LocalNames(dict[str, str]):
    """Names of elements without their namespace, empty in other namespaces."""

    def __init__(self, namespaces: tuple[str, ...]) -> None:
        super().__init__()
        self._namespaces = namespaces

    def __missing__(self, name: str) -> str:
        namespace, _, tag = name.rpartition("}")
        found = tag if namespace in self._namespaces else ""
        if len(self) < _KNOWN_NAMES:
            self[name] = found
        return found


def reference(attributes: Mapping[str, str]) -> str:
    """The id by which an element refers to a part: an attribute `id` in a namespace of relationships."""
    return next((value for name, value in attributes.items() if re.search(r"relationships\}id$", name)), "")
