"""Numbers, dates, addresses, institutions and names that identify a person: where they are in a text.

The patterns are for reports in English. presidio adds telephone numbers and identity numbers with a check digit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from cxrreport.errors import MissingExtraError
from cxrreport.reports.deidentify.names import names

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_ORDINAL = rf"{_DAY}(?:st|nd|rd|th)?"
_YEAR = r"(?:19|20)\d\d"
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)(?:s|nes|rs|ur)?(?:day)?\.?,?[ \t]{1,2})?"
_DATES = (
    rf"{_YEAR}([-/.])(?:0?[1-9]|1[0-2])\1{_DAY}",
    rf"{_DAY}([-/.]){_DAY}\1(?:{_YEAR}|\d\d)(?!\.?\d)",
    rf"{_DAY}[-/ ]{_MONTH}[-/ ,]{{1,2}}(?:{_YEAR}|\d\d)\b",
    rf"{_WEEKDAY}(?:the )?{_MONTH}[ \t]{{1,2}}{_ORDINAL}(?:,?[ \t]{{1,2}}{_YEAR}|,?[ \t]{{1,2}}'\d\d)?",
    rf"{_WEEKDAY}(?:the )?{_ORDINAL}(?: of)?[ \t]{{1,2}}{_MONTH}(?:,?[ \t]{{1,2}}{_YEAR})?",
    rf"(?:0?[1-9]|1[0-2])[-/]{_YEAR}",
    rf"{_MONTH},?(?: of)?[ \t]{{1,2}}{_YEAR}",
)
_AM_PM = r"[ap]\.?m\b\.?"
_CLOCK = r"(?:[01]?\d|2[0-4])(?::[0-5]\d(?::[0-5]\d)?|\.[0-5]\d(?=[ ]?h))"
_MILITARY = r"(?P<id>(?:[01]\d|2[0-3])[0-5]\d)"
_NUMBER = r"\.?[ ]?(?:numbers?|nos?|num|id|#)?[.:# ]{0,3}"
_NUMBERED = r"[ ]?(?:(?:numbers?|nos?|num|id)[.:# ]{1,3}|[#:][# ]{0,2})"
_SHORT_DATE = rf"(?:0?[1-9]|1[0-2])/{_DAY}(?![\d/]|[ ]?(?:mm|cm|of|ribs?|views?|films?|images?|murmur|breaths))"
_ID = r"(?=[\w./-]{0,20}\d)[A-Z0-9](?:[\w./-]{1,22}[A-Z0-9])"
_STREET = (
    r"(?:street|st|avenue|ave|road|rd|drive|dr|lane|ln|boulevard|blvd|court|ct|place|pl|terrace|way|circle|cir|square|sq|"
    r"parkway|pkwy|highway|hwy|crescent|close|row|walk|trail)"
)
_AREA = r"(?:\(\d{3}\)[ ]?|\d{3}[ .-])"
_EXTENSION = r"(?:[ ]?(?:x|ext\.?)[ ]?\d{1,6})?"
_FLAT = r"(?:,?[ ](?i:apt|unit|suite|ste|#)\.?[ ]?\w{1,5})?"
_CAPITALISED = r"[A-Z][\w'’.-]{0,24}"
_STATE = (
    r"(?:A[LKZR]|C[AOT]|D[EC]|FL|GA|HI|I[DLNA]|K[SY]|LA|M[EDAINSOT]|N[EVHJMYCD]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[TA]|W[AVIY]|"
    r"[A-Z][a-z]{3,12}(?:[ ][A-Z][a-z]{3,12})?)"
)
_UK_POSTCODE = r"[A-Z]{1,2}\d[A-Z\d]?[ ]\d[A-Z]{2}"
_PLACE = rf"{_CAPITALISED}(?:[ ]{_CAPITALISED}){{0,2}}"
_TOWN = rf"(?:,?[ \t\n]{{1,2}}{_PLACE}(?:,?[ ]{_STATE})?(?:,?[ ]\d{{5}}(?:-\d{{4}})?\b|,?[ ]{_UK_POSTCODE}\b)?)?"
_CENTRES = "Medical Health Cancer Trauma Rehabilitation Surgical Care"
_INSTITUTION = "|".join(
    rf"{name}|{name.upper()}"
    for name in (
        *("Hospitals?", "Clinic", "Infirmary", "Hospice", "Nursing Home", "Care Home"),
        *("Health System", "Health Network", "Health Partners", "Healthcare", "Health"),
        *(f"{kind} Cent(?:er|re)" for kind in _CENTRES.split()),
    )
)
_GENERIC = (
    r"(?:Outside|Other|Prior|Same|Local|Referring|Patient|Public|Home|Mental|Overall|Good|Poor|General|Pain|Emergency|"
    r"Urgent|Primary|Acute|Day|Medical|Intensive|Occupational|Employee|Wellness|Chest|Heart|Breast|Lung)"
)
_NO_NAME = rf"(?:An?|The|This|That|Our|Your|Another|From|To|In|At|Per|Dr|Mr|Mrs|Ms)\b|{_GENERIC}[ ](?:{_INSTITUTION})"
_OWN_NAME = (
    rf"{_CAPITALISED}[ ](?:(?<=University )of[ ]|(?<=College )of[ ]|(?<=Lady )of[ ]|"
    rf"(?<=Sisters )of[ ]|(?:the|and|&)[ ]|"
    rf"{_CAPITALISED}[ ]){{0,3}}?"
)
_CALLING = "phone|telephone|tel|fax|pager|page|paged|beeper|call|callback|cell|mobile|contact|reached|extension|at|on"
_RECORD = (
    rf"(?:mrn|mr(?=[ ]?#)|medical record|accession|acc|patient id|exam id|csn|study id|hospital number|unit number)\b"
    rf"{_NUMBER}|"
    rf"(?:order|visit|encounter|account|case|specimen|fin|chart|req(?:uisition)?|licen[cs]e)\b{_NUMBERED}"
)
_INSURED = (
    rf"(?:ssn|social security|soc\.? sec|nhs|medicare|medicaid|passport|national id|ohip)\b\.?{_NUMBER}|"
    rf"(?:ss|insurance|policy|health card)\b{_NUMBERED}"
)
_BEFORE_DATE = (
    "on|dated?|from|since|of|to|with|until|through|comparison|study|exam|film|radiograph|x-?ray|cxr|ct|placed|removed|"
    "born|dob"
)
_RULES: tuple[tuple[str, str], ...] = (
    ("email", r"[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,6}"),
    ("url", r"(?i)\b(?:https?://|www\.)[^\s<>\"]{3,200}"),
    *(("date", rf"(?i)(?<![\w/.-]){pattern}(?![\w/])") for pattern in _DATES),
    ("date", rf"(?i)(?:\b(?:{_BEFORE_DATE})[:,]?[ \t]{{1,2}}|\A(?=[\d/]+\W*\Z))(?P<id>{_SHORT_DATE})(?!\w)"),
    ("time", rf"(?i)(?<![\w:.]){_CLOCK}(?:[ ]?{_AM_PM}|[ ]?(?:hrs?|hours)\b)?(?!:?\d)"),
    ("time", rf"(?i)(?<![\w:.])(?:0?[1-9]|1[0-2])(?:\.[0-5]\d)?[ ]?{_AM_PM}"),
    ("time", rf"(?i)\b(?:at|time|exam|chest|,)[:,]?[ \t]{{1,2}}{_MILITARY}(?![\w-]|[ ]?(?:ml|cc|mg|mm|cm|g)\b)"),
    ("time", rf"(?i)(?<![\w:.]){_MILITARY}[ ]?(?:h|hrs?|hours)\b"),
    ("phone", rf"(?i)(?<![\w-])(?:\+?\d{{1,3}}[ .-]?)?{_AREA}\d{{3}}[ .-]\d{{4}}(?![\w-]){_EXTENSION}"),
    ("phone", r"\+\d{1,3}(?:[ ().-]{0,2}\d){6,12}"),
    ("phone", rf"(?i)\b(?:{_CALLING})\b[^\n\d]{{0,24}}(?<!\d)(?P<id>\d{{3}}[ .-]\d{{4}})(?![\w-])"),
    ("phone", r"(?i)(?<!\w)(?P<id>(?:x|ext\.?|extension)[ ]?\d{3,6})\b"),
    ("phone", r"(?i)\b(?:pager|beeper|fax|telephone|phone|tel)\b[.:# ]{0,3}(?P<id>\d[\d-]{3,10})\b"),
    ("record", rf"(?i)\b(?:{_RECORD})(?P<id>{_ID})\b"),
    ("record", r"(?<![\w.,/-])[A-Z]{0,4}[- ]?\d{6,14}(?![\w,]|\.\d)"),
    ("record", r"#[ ]?(?P<id>\d{4,14})(?![\w-])"),
    ("record", r"(?<![\w.-])\d{2,4}-\d{2,4}-\d{2,5}(?![\w-])"),
    ("record", r"(?<![\w.-])[A-Z]{1,4}-?\d{2,6}-\d{3,8}(?![\w-])"),
    ("national-id", r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"),
    ("national-id", rf"(?i)\b(?:{_INSURED})(?P<id>\d{{3}}[ -]\d{{2,3}}[ -]\d{{4}}|{_ID})\b"),
    ("address", rf"(?<![\w.-])\d{{1,5}}[A-Z]?[ ](?:[NSEW]\.?[ ])?{_PLACE}[ ](?i:{_STREET})\b\.?{_FLAT}{_TOWN}"),
    ("address", rf"\b(?i:p\.?o\.? box)[ ]\d{{1,6}}{_TOWN}"),
    ("address", rf"\b{_PLACE},[ ]{_STATE}[ ]\d{{5}}(?:-\d{{4}})?\b"),
    ("address", rf"\b{_UK_POSTCODE}\b"),
    ("hospital", rf"(?<![\w.-])(?!{_NO_NAME}){_OWN_NAME}(?:{_INSTITUTION})\b(?:[ ]of(?:[ ]the)?[ ]{_PLACE})?"),
    ("hospital", rf"\b(?:University|Royal|Community)[ ](?:Hospital|Infirmary)[ ](?:of|in)[ ]{_PLACE}"),
    ("age", r"(?i)(?<![\w.])(?P<id>9\d|1[0-2]\d)(?=[ -]?(?:years?|yrs?|y/?\.?o\.?\b|y\b))"),
    ("age", r"(?i)\b(?P<id>(?:ninety|(?:one |a )?hundred)(?:[ -][a-z]{2,5}){0,3})(?=[ -]years?[ -]old)"),
    ("age", r"(?i)\b(?:age|aged)[: ]{1,2}(?P<id>9\d|1[0-2]\d)\b"),
)
KINDS = ("name", *dict.fromkeys(kind for kind, _ in _RULES))
_PATTERNS = tuple((kind, re.compile(pattern)) for kind, pattern in _RULES)
_LETTER = re.compile(r"[^\W_]")
_PLACEHOLDER = re.compile(r"_{2,}|X{3,}")


@dataclass(frozen=True, slots=True, order=True)
class Identifier:
    """Where an identifier is in a text, and of what kind."""

    start: int
    end: int
    kind: str


def identifiers(text: str) -> list[Identifier]:
    """Identifiers in a text, in order; those that overlap are one.

    Raises:
        MissingExtraError: presidio or Faker is not installed.
    """
    found = list(_of_presidio(text))
    found += [Identifier(start, end, "name") for start, end in names(text)]
    for kind, pattern in _PATTERNS:
        group = "id" if "id" in pattern.groupindex else 0
        found += [Identifier(*match.span(group), kind) for match in pattern.finditer(text)]
    found = [item for item in found if _LETTER.search(_PLACEHOLDER.sub("", text[item.start : item.end]))]
    merged: list[Identifier] = []
    for item in sorted(found, key=lambda item: (item.start, -item.end)):
        if merged and item.start < merged[-1].end:
            last = merged[-1]
            merged[-1] = Identifier(last.start, max(last.end, item.end), last.kind)
        else:
            merged.append(item)
    return merged


def load() -> None:
    """Import the libraries.

    Raises:
        MissingExtraError: presidio or Faker is not installed.
    """
    _recognizers()


def _of_presidio(text: str) -> Iterable[Identifier]:
    for kind, recognizer in _recognizers():
        for result in recognizer.analyze(text, recognizer.supported_entities, None) or ():
            if kind == "phone" or result.score >= 0.9:  # by their check digit
                yield Identifier(result.start, result.end, kind)


@cache
def _recognizers() -> tuple[tuple[str, Any], ...]:
    try:
        import faker  # noqa: F401 - for the names
        from presidio_analyzer import predefined_recognizers as known
    except ImportError as error:
        raise MissingExtraError("texts.deidentify", "deidentify") from error
    numbers = (
        known.NhsRecognizer, known.UsItinRecognizer, known.EsNifRecognizer, known.PlPeselRecognizer,
        known.AuMedicareRecognizer, known.AuTfnRecognizer, known.InAadhaarRecognizer, known.ItFiscalCodeRecognizer,
        known.FiPersonalIdentityCodeRecognizer, known.CreditCardRecognizer, known.IbanRecognizer, known.IpRecognizer,
    )  # fmt: skip
    return (
        ("phone", known.PhoneRecognizer(supported_regions=("US", "GB"))),
        *(("national-id", recognizer()) for recognizer in numbers),
    )
