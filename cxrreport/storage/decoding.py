"""Texts that users provide, in the encodings in which spreadsheets and reporting systems write them."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet runs as a formula."""
_BINARY = re.compile("[\0-\x08\x0e-\x1f]")
_CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_DAMAGED = re.compile("[\0\ufffd\ud800-\udfff]")


class UnreadableTextError(ValueError):
    """Bytes that are no text in a known encoding.

    Args:
        before: the text before the first of them.
        found: what they are instead.
    """

    def __init__(self, before: str, found: str = "neither UTF-8, UTF-16 with a mark nor Windows-1252") -> None:
        line = 1 + (before.count("\n") or before.count("\r"))
        super().__init__(f"line {line}: {found}")


def decode_text(data: bytes | bytearray) -> str:
    """Decode UTF-8, UTF-16 and UTF-32 with a byte order mark, UTF-16 of a Latin script without one, or Windows-1252.

    Windows-1252 includes Latin-1.

    Byte order marks are removed wherever they are: concatenated files have them in the middle.

    Raises:
        UnreadableTextError: the data are none of these, or contain a NUL.
    """
    return decode(data)[0]


def decode(data: bytes | bytearray) -> tuple[str, str]:
    """`decode_text`, and the name of the encoding."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), _without_mark(data))
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise UnreadableTextError(data[: error.start].decode(encoding, "replace")) from None
        text, encoding = _windows_1252(data), "windows-1252"
    if "\0" in text:
        raise UnreadableTextError(text[: text.index("\0")], "a NUL, which no text has")
    return text.replace("\ufeff", ""), encoding


def _without_mark(data: bytes | bytearray) -> str:
    """UTF-16 if most characters have a NUL as one of their bytes, always the same; otherwise UTF-8."""
    head = data[: 1 << 16]
    for encoding, nul in (("utf-16-le", 1), ("utf-16-be", 0)):
        if len(data) % 2 == 0 and head[nul::2].count(0) > 0.7 * len(head[nul::2]) and not head[1 - nul :: 2].count(0):
            return encoding
    return "utf-8"


def parse_json(text: str | bytes, **options: Any) -> Any:
    """`json.loads` for text from a file, for which nesting beyond what Python can parse is a `ValueError` too."""
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("lists or objects are nested too deep") from None


def is_damaged(text: str) -> bool:
    """True if a text was decoded with loss before: it holds a NUL, a replacement character or half a character."""
    return _DAMAGED.search(text) is not None


def without_controls(text: str, instead: str = "") -> str:
    """Replace what XML, FHIR and terminals do not show as text: control characters but tabs and line feeds, and halves.

    Args:
        text: any text, for example of a report or of a DICOM element.
        instead: takes the place of each character.
    """
    return _CONTROLS.sub(instead, text)


def _windows_1252(data: bytes | bytearray) -> str:
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError as error:
        raise UnreadableTextError(data[: error.start].decode("cp1252")) from None
    if binary := _BINARY.search(text):
        raise UnreadableTextError(text[: binary.start()])
    return text
