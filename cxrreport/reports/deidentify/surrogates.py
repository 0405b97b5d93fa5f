"""Surrogates: replacements of identifiers, the same for the same patient and identifier.

Names become other names, dates of a patient are moved by the same number of days, and digits become other digits.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import importlib
import re
from dataclasses import dataclass
from functools import cache

from cxrreport.reports.deidentify.names import first_names

MARK = "___"
"""As MIMIC-CXR marks what was removed."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NUMERIC = re.compile(r"\d+")
_MONTH = re.compile(r"(?i)\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*")
_WEEKDAY = re.compile(r"(?i)\b(?:mon|tue|wed|thu|fri|sat|sun)(?:s|nes|rs|ur)?(?P<day>day)?\b")
_ORDINAL = re.compile(r"(?i)(\d+)(?:st|nd|rd|th)\b")
_CENTURY = 70  # a year of two digits from 70 on is one of the 1900s


@dataclass(frozen=True, slots=True)
class Surrogates:
    """Surrogates for the identifiers of one patient.

    Args:
        seed: of the patient; another one gives other surrogates.
    """

    seed: str

    def of(self, kind: str, text: str) -> str:
        """The surrogate of an identifier."""
        if kind == "name":
            return re.sub(r"[^\W\d_]+", self._name, text)
        if kind == "date":
            return self._date(text)
        if kind == "time":
            return self._time(text)
        if kind == "age":
            return "90"  # pooled, as 45 CFR 164.514(b)(2)(i)(C) asks
        if kind in ("email", "url"):
            return f"{self._last_name(text).lower()}@example.com" if kind == "email" else "https://example.com"
        if kind == "hospital":
            return f"{self._last_name(text)} Hospital"
        if kind == "address":
            number = re.match(r"\d+", text)
            place = f"{self._last_name(text)} Street" if number else f"{self._last_name(text)}ville"
            return f"{self._digits(number.group())} {place}" if number else place
        return self._digits(text)

    def _number(self, purpose: str, text: str, below: int) -> int:
        message = f"{purpose}\0{text}".encode(errors="surrogatepass")
        digest = hmac.new(self.seed.encode(errors="surrogatepass"), message, hashlib.sha256).digest()
        return int.from_bytes(digest[:8], "big") % below

    def _name(self, match: re.Match[str]) -> str:
        name = match.group()
        if len(name) < 3:
            return self._digits(name) if name.isupper() else name
        pool = _first_names() if name.casefold() in first_names() else _last_names()
        other = pool[self._number("name", name.casefold(), len(pool))]
        return other.upper() if name.isupper() else other

    def _last_name(self, text: str) -> str:
        return _last_names()[self._number("place", " ".join(text.casefold().split()), len(_last_names()))]

    def _digits(self, text: str) -> str:
        """Other digits and capitals in the same places."""
        plain = re.sub(r"[\W_]", "", text).casefold()

        def other(match: re.Match[str]) -> str:
            at, old = match.start(), match.group()
            if old.isdigit():
                return str(self._number(f"digit{at}", plain, 10))
            return chr(ord("A") + self._number(f"letter{at}", plain, 26))

        return re.sub(r"\d|(?<![a-z])[A-Z](?![a-z])", other, text)

    def _time(self, text: str) -> str:
        places = iter((12, 60, 60))

        def other(match: re.Match[str]) -> str:
            digits = match.group()
            if len(digits) == 4:
                return f"{self._number('hour', text, 24):02}{self._number('minute', text, 60):02}"
            below = next(places, 60)
            value = self._number(f"time{below}", text, below) + (below == 12)
            return f"{value:02}" if len(digits) == 2 else str(value)

        return _NUMERIC.sub(other, text)

    def _date(self, text: str) -> str:
        """The date, moved by the days of this patient, in the same spelling; `MARK` if it is none of the calendar."""
        shift = datetime.timedelta(days=-(1 + self._number("shift", "", 364)))
        month = _MONTH.search(text)
        numbers = [int(match.group()) for match in _NUMERIC.finditer(text)]
        order = _order(_NUMERIC.findall(text), named_month=month is not None, text=text)
        if len(order) != len(numbers):
            return MARK
        parts = dict(zip(order, numbers, strict=True))
        if month:
            parts["month"] = _MONTHS.index(month.group()[:3].lower()) + 1
        year = parts.get("year", 2001)
        year += 0 if year > 99 else 1900 if year >= _CENTURY else 2000
        try:
            moved = datetime.date(year, parts["month"], parts.get("day", 15)) + shift
        except (KeyError, ValueError, OverflowError):
            return MARK
        names = iter(order)

        def number(match: re.Match[str]) -> str:
            digits = len(match.group())
            return f"{getattr(moved, next(names)) % 10 ** max(digits, 2):0{digits}}"

        result = _NUMERIC.sub(number, text)
        result = _ORDINAL.sub(lambda match: match[1] + _ending(int(match[1])), result)
        if month:
            full = moved.strftime("%B" if len(month.group()) > 4 or month.group().lower() == "june" else "%b")
            result = _MONTH.sub(full.upper() if month.group().isupper() else full, result, count=1)
        return _WEEKDAY.sub(lambda match: moved.strftime("%A" if match["day"] else "%a"), result)


def _order(numbers: list[str], *, named_month: bool, text: str) -> tuple[str, ...]:
    """What the numbers of a date are, in their order."""
    if named_month:
        if len(numbers) == 1:
            return ("year",) if len(numbers[0]) == 4 else ("day",)
        return ("day", "year")
    if len(numbers) < 3:
        return ("month", "year") if len(numbers[-1]) == 4 else ("month", "day")
    if len(numbers[0]) == 4:
        return ("year", "month", "day")
    day_first = int(numbers[0]) > 12 or ("." in text and int(numbers[1]) <= 12)
    return ("day", "month", "year") if day_first else ("month", "day", "year")


def _ending(day: int) -> str:
    return "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


@cache
def _first_names() -> tuple[str, ...]:
    return tuple(importlib.import_module("faker.providers.person.en_US").Provider.first_names)


@cache
def _last_names() -> tuple[str, ...]:
    return tuple(importlib.import_module("faker.providers.person.en_US").Provider.last_names)
