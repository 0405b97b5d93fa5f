"""Files that are neither texts nor workbooks of today, whatever their names say."""

from __future__ import annotations

import re
from pathlib import Path

_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_SEARCHED = 64 << 20  # of a compound file, for the name of its stream


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
