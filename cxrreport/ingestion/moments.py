"""When a study was made: dates and times of headers and tables, as far as the order of studies needs them.

A moment exists while studies are planned. It is in no file, no message and no run of MLflow; the manifest has the whole
days between two studies of a patient.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime
from typing import NamedTuple

_DATE = re.compile(r"(\d{4})([.-]?)(\d{2})\2(\d{2})")
_TIME = re.compile(r"(\d{2})(?:(:?)(\d{2})(?:\2(\d{2}(?:\.\d*)?))?)?")
_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})")
_NUMBER = re.compile(r"(\d+)(\.\d*)?")
_PLACEHOLDER = 1901
"""Last year of dates that stand for removed ones: 1900-01-01 of databases, 1901-01-01 of de-identified collections."""
_SPREAD = 1
"""Days by which images of one study may differ: it may pass midnight."""


class Moment(NamedTuple):
    """When an image or a study was made, by date or by its place among the studies of the patient.

    Args:
        day: ordinal of the local date (`date.toordinal`), or the place.
        second: since local midnight; `None` if unknown.
        offset: minutes by which local time is ahead of UTC; `None` if unknown.
        dated: false if `day` is a place, a number that grows with time.
    """

    day: int
    second: float | None = None
    offset: int | None = None
    dated: bool = True


def moment_of(day: str, time: str = "", offset: str = "") -> Moment | None:
    """A moment from values of DICOM (VR DA, TM, and Timezone Offset From UTC), PS3.5 6.2; `None` without a valid date.

    The forms with points and colons of ACR-NEMA and ISO 8601 count too. A time that is not valid is unknown.
    """
    found = _DATE.fullmatch(day.strip())
    try:
        ordinal = date(int(found[1]), int(found[3]), int(found[4])).toordinal() if found else None
    except ValueError:
        return None
    if ordinal is None or found is None or int(found[1]) <= _PLACEHOLDER:
        return None
    ahead = _OFFSET.fullmatch(offset.strip())
    minutes = int(f"{ahead[1]}{int(ahead[2]) * 60 + int(ahead[3])}") if ahead else None
    return Moment(ordinal, _second(time.strip()), minutes)


def moment_in_table(day: str, time: str = "", *, padded: bool = False) -> Moment | None:
    """A moment from cells of a table: as `moment_of`, or date and time as ISO 8601 in the first.

    Numbers that lost their leading zeros are completed: `85143.156` is 08:51:43.156.

    Args:
        day: of the study.
        time: of the study.
        padded: also complete times without decimals to six digits, for a table whose times always have seconds.
    """
    day = re.sub(r"\.0+$", "", day.strip())
    if found := moment_of(day, _completed(time.strip(), padded=padded)):
        return found
    try:
        both = datetime.fromisoformat(day)
    except ValueError:
        return None
    ahead = both.utcoffset()
    offset = "" if ahead is None else f"{'-' if ahead.days < 0 else '+'}{_clock(abs(ahead).total_seconds())}"
    return moment_of(f"{both:%Y%m%d}", f"{both:%H%M%S.%f}", offset)


def first_moment(stated: Iterable[tuple[str, str, str]]) -> Moment | None:
    """The first valid date, with the first valid time that is stated with the same date.

    Args:
        stated: arguments of `moment_of`, the preferred ones first.
    """
    moments = [found for one in stated if (found := moment_of(*one))]
    same = [found for found in moments if found.day == moments[0].day]
    return next((found for found in same if found.second is not None), same[0] if same else None)


def date_and_time(value: str) -> tuple[str, str, str]:
    """The parts of a value of VR DT: date, time and offset from UTC, each empty where it is missing."""
    found = re.fullmatch(r"(\d{8})([\d.]*)([+-]\d{4})?", value.strip())
    return (found[1], found[2], found[3] or "") if found else ("", "", "")


def earliest(moments: Iterable[Moment]) -> Moment | None:
    """The earliest moment of the images of a study; `None` if they are more than a day apart."""
    # A known time before an unknown one: they are of one study.
    known = sorted(moments, key=lambda one: (one.dated, one.day, one.second is None, one.second or 0))
    first, last = known[0], known[-1]
    apart = last.day - first.day > (_SPREAD if first.dated else 0)
    return None if apart or first.dated != last.dated else first


def _second(time: str) -> float | None:
    found = _TIME.fullmatch(time)
    if found is None:
        return None
    hours, minutes, seconds = int(found[1]), int(found[3] or 0), float(found[4] or 0)
    # 60 is a leap second.
    return hours * 3600 + minutes * 60 + seconds if hours < 24 and minutes < 60 and seconds < 61 else None


def _completed(time: str, *, padded: bool) -> str:
    found = _NUMBER.fullmatch(time)
    if found is None:
        return time
    whole, fraction = found[1], found[2] or ""
    width = 6 if padded or fraction.strip(".0") or len(whole) > 4 else len(whole) + len(whole) % 2
    return whole.zfill(width) + (fraction if width == 6 else "")


def _clock(seconds: float) -> str:
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours:02}{minutes:02}"
