"""Values of cells as texts: dates, formats of numbers, and characters that XML cannot hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Literal

Shown = Literal["number", "date", "duration"]

DIGITS = 15
"""Excel keeps so many digits of a number; those after them are zeros."""
EXACT = 10**DIGITS
_DATES = frozenset({*range(14, 23), *range(27, 37), *range(50, 59)})
_DURATIONS = frozenset({45, 46, 47})
"""Built-in number formats."""
_LITERAL = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?![hms]+\])[^\]]*\]', re.I)
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_DAYS = 2_950_000  # to a day of the year 9976
_LEAP_DAY = 60
"""Excel counts a 29 February 1900, which Lotus 1-2-3 did by mistake."""


@dataclass(frozen=True, slots=True)
class Format:
    """How the number of a cell is shown.

    Args:
        shown: as what.
        zeros: digits to which whole numbers are filled with zeros, as `00000000` does with ids.
    """

    shown: Shown = "number"
    zeros: int = 0


def format_of(number: int, codes: Mapping[int, str]) -> Format:
    """The format with a number: one of the workbook's own codes, or a built-in one."""
    code = codes.get(number)
    if code is None:
        return Format("date" if number in _DATES else "duration" if number in _DURATIONS else "number")
    plain = _LITERAL.sub("", code.partition(";")[0])
    if re.search(r"\[[hms]+\]", plain, re.I):
        return Format("duration")
    if re.search("[dmyhs]", plain, re.I):
        return Format(
            "date" if re.search("[dmy]", re.sub("mm?:ss|h+:m+|AM/PM", "", plain, flags=re.I), re.I) else "duration"
        )
    return Format(zeros=len(plain) if re.fullmatch("0{2,}", plain) else 0)


def date_text(value: float, shown: Format, epoch_1904: bool) -> str:
    """A number of days as a date, with its time if it has one, or as hours; empty if it is neither.

    Args:
        value: days, from the beginning of 1900 or 1904 if it is a date.
        shown: how the number is shown.
        epoch_1904: dates are counted from 1904.
    """
    if not 0 <= value < _DAYS:
        return ""
    if shown.shown == "duration" or value < 1:  # a time of day
        seconds = round(value * 86400)
        return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    if epoch_1904:
        start = datetime(1904, 1, 1)
    else:
        start = datetime(1899, 12, 30) if value >= _LEAP_DAY else datetime(1899, 12, 31)
    return iso(start + timedelta(days=int(value), seconds=round(value % 1 * 86400)))


def iso(when: datetime) -> str:
    """A date, with its time unless it is midnight; workbooks have no time zones."""
    when = when.replace(tzinfo=None)
    return when.isoformat() if when.time() != time() else when.date().isoformat()


def unescaped(text: str) -> str:
    """Text in which `_x000D_` is the character of this number."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if "_x" in text else text
