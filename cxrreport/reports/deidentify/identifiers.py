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
_WEEKDAY = r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day,?[ \t]{1,2})?"
_DATES = (
    rf"{_YEAR}([-/.])(?:0?[1-9]|1[0-2])\1{_DAY}",
    rf"{_DAY}([-/.]){_DAY}\1(?:{_YEAR}|\d\d)(?!\.?\d)",
    rf"{_DAY}[-/ ]{_MONTH}[-/ ,]{{1,2}}(?:{_YEAR}|\d\d)\b",
    rf"{_WEEKDAY}(?:the )?{_MONTH}[ \t]{{1,2}}{_ORDINAL}(?:,?[ \t]{{1,2}}{_YEAR}|,?[ \t]{{1,2}}'\d\d)?",
    rf"{_WEEKDAY}(?:the )?{_ORDINAL}(?: of)?[ \t]{{1,2}}{_MONTH}(?:,?[ \t]{{1,2}}{_YEAR})?",
    rf"{_MONTH},?(?: of)?[ \t]{{1,2}}{_YEAR}",
)
_SHORT_DATE = rf"(?:0?[1-9]|1[0-2])/{_DAY}(?![\d/]|[ ]?(?:mm|cm|of|ribs?|views?|films?|images?|murmur|breaths))"
_ID = r"(?=[\w./-]{0,20}\d)[A-Z0-9](?:[\w./-]{0,22}[A-Z0-9])"
_STREET = (
    r"(?:street|st|avenue|ave|road|rd|drive|dr|lane|ln|boulevard|blvd|court|ct|place|pl|terrace|way|circle|cir|square|sq|"
    r"parkway|pkwy|highway|hwy|crescent|close|row|walk|trail)"
)
_CAPITALISED = r"[A-Z][\w'’.-]{0,24}"
_STATE = (
    r"(?:A[LKZR]|C[AOT]|D[EC]|FL|GA|HI|I[DLNA]|K[SY]|LA|M[EDAINSOT]|N[EVHJMYCD]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[TA]|W[AVIY]|"
    r"[A-Z][a-z]{3,12}(?:[ ][A-Z][a-z]{3,12})?)"
)
_UK_POSTCODE = r"[A-Z]{1,2}\d[A-Z\d]?[ ]\d[A-Z]{2}"
_PLACE = rf"{_CAPITALISED}(?:[ ]{_CAPITALISED}){{0,2}}"
_TOWN = rf"(?:,?[ \t\n]{{1,2}}{_PLACE}(?:,?[ ]{_STATE})?(?:,?[ ]\d{{5}}(?:-\d{{4}})?\b|,?[ ]{_UK_POSTCODE}\b)?)?"
_INSTITUTION = (
    r"(?:Hospitals?|HOSPITALS?|(?:Medical|MEDICAL|Health|HEALTH|Cancer|CANCER|Trauma|TRAUMA|Rehabilitation|REHABILITATION|"
    r"Surgical|SURGICAL|Care|CARE)[ ](?:Cent(?:er|re)|CENT(?:ER|RE))|Clinic|CLINIC|Infirmary|INFIRMARY|Hospice|HOSPICE|"
    r"(?:Nursing|NURSING|Care|CARE)[ ](?:Home|HOME)|Health(?:care)?(?:[ ](?:System|Network|Partners))?|HEALTH(?:CARE)?)"
)
_GENERIC = (
    r"(?:An?|The|This|That|Our|Your|Outside|Other|Another|Prior|Same|Local|Referring|From|To|In|At|Per|Patient|Public|Home|"
    r"Mental|Overall|Good|Poor|General|Pain|Emergency|Urgent|Primary|Acute|Day|In|Medical|Intensive|Occupational|"
    r"Employee|Wellness|Chest|Heart|Breast|Lung)"
)
_RULES: tuple[tuple[str, str, int], ...] = (
    ("email", r"[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,6}", 0),
    ("url", r"\b(?:https?://|www\.)[^\s<>\"]{3,200}", re.I),
    *(("date", rf"(?<![\w/.-]){pattern}(?![\w/])", re.I) for pattern in _DATES),
    (
        "date",
        rf"(?:\b(?:on|dated?|from|since|of|to|with|until|through|comparison|study|exam|film|radiograph|x-?ray|cxr|ct|"
        rf"placed|removed|born|dob)[:,]?[ \t]{{1,2}}|\A)(?P<id>{_SHORT_DATE})(?!\w)",
        re.I,
    ),
    ("time", r"(?<![\w:.])(?:[01]?\d|2[0-4]):[0-5]\d(?::[0-5]\d)?(?:[ ]?[ap]\.?m\b\.?|[ ]?(?:hrs?|hours)\b)?(?!:?\d)", re.I),
    ("time", r"(?<![\w:.])(?:0?[1-9]|1[0-2])[ ]?[ap]\.?m\b\.?", re.I),
    ("time", r"\b(?:at|time|exam|chest|,)[:,]?[ \t]{1,2}(?P<id>(?:[01]\d|2[0-3])[0-5]\d)(?![\w-]|[ ]?(?:ml|cc|mg|mm|cm|g)\b)", re.I),
    ("time", r"(?<![\w:.])(?P<id>(?:[01]\d|2[0-3])[0-5]\d)[ ]?(?:h|hrs?|hours)\b", re.I),
    (
        "phone",
        r"(?<![\w-])(?:\+?\d{1,3}[ .-]?)?(?:\(\d{3}\)[ ]?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\w-])(?:[ ]?(?:x|ext\.?)[ ]?\d{1,6})?",
        re.I,
    ),
    ("phone", r"\+\d{1,3}(?:[ ().-]{0,2}\d){6,12}", 0),
    (
        "phone",
        r"\b(?:phone|telephone|tel|fax|pager|page|paged|beeper|call|callback|cell|mobile|contact|reached|extension|at|on)\b"
        r"[^\n\d]{0,24}(?<!\d)(?P<id>\d{3}[ .-]\d{4})(?![\w-])",
        re.I,
    ),
    ("phone", r"(?<!\w)(?P<id>(?:x|ext\.?|extension)[ ]?\d{3,6})\b", re.I),
    ("phone", r"\b(?:pager|beeper|fax|telephone|phone|tel)\b[.:# ]{0,3}(?P<id>\d[\d-]{3,10})\b", re.I),
    (
        "record",
        r"\b(?:mrn?|medical record|accession|acc|patient id|exam id|order|visit|encounter|account|case|specimen|csn|fin|"
        r"study id|hospital number|unit number|chart|req(?:uisition)?|dl|licen[cs]e)\b[ ]?(?:numbers?|nos?|num|id)?[.:# ]{0,3}"
        rf"(?P<id>{_ID})\b",
        re.I,
    ),
    ("record", r"(?<![\w.,/-])[A-Z]{0,4}[- ]?\d{6,14}(?![\w,]|\.\d)", 0),
    ("record", r"(?<![\w.-])\d{2,4}-\d{2,4}-\d{2,5}(?![\w-])", 0),
    ("record", r"(?<![\w.-])[A-Z]{1,4}-?\d{2,6}-\d{3,8}(?![\w-])", 0),
    ("national-id", r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])", 0),
    (
        "national-id",
        r"\b(?:ssn?|social security|soc\.? sec|nhs|medicare|medicaid|insurance|policy|passport|national id|health card|ohip)"
        rf"\b\.?[ ]?(?:numbers?|nos?|id|#)?[.:# ]{{0,3}}(?P<id>\d{{3}}[ -]\d{{2,3}}[ -]\d{{4}}|{_ID})\b",
        re.I,
    ),
    (
        "address",
        rf"(?<![\w.-])\d{{1,5}}[A-Z]?[ ](?:[NSEW]\.?[ ])?{_PLACE}[ ](?i:{_STREET})\b\.?"
        rf"(?:,?[ ](?i:apt|unit|suite|ste|#)\.?[ ]?\w{{1,5}})?{_TOWN}",
        0,
    ),
    ("address", rf"\b(?i:p\.?o\.? box)[ ]\d{{1,6}}{_TOWN}", 0),
    ("address", rf"\b{_PLACE},[ ]{_STATE}[ ]\d{{5}}(?:-\d{{4}})?\b", 0),
    ("address", rf"\b{_UK_POSTCODE}\b", 0),
    (
        "hospital",
        rf"(?<![\w.-])(?:(?!{_GENERIC}\b)[A-Z][\w'’.-]{{1,24}}[ ])(?:(?:of|the|and|&)[ ]|[A-Z][\w'’.-]{{1,24}}[ ]){{0,3}}?"
        rf"{_INSTITUTION}\b(?:[ ]of(?:[ ]the)?[ ]{_PLACE})?",
        0,
    ),
    ("hospital", rf"\b(?:University|General|Children's|Royal|Memorial|Community)[ ](?:Hospital|Infirmary)[ ](?:of|in)[ ]{_PLACE}", 0),
    ("age", r"(?<![\w.])(?P<id>9\d|1[0-2]\d)(?=[ -]?(?:years?|yrs?|y/?\.?o\.?\b|y\b))", re.I),
    ("age", r"\b(?:age|aged)[: ]{1,2}(?P<id>9\d|1[0-2]\d)\b", re.I),
)
KINDS = ("name", *dict.fromkeys(kind for kind, _, _ in _RULES))
_PATTERNS = tuple((kind, re.compile(pattern, flags)) for kind, pattern, flags in _RULES)
_LETTER = re.compile(r"[^\W_]")
_PLACEHOLDER = re.compile(r"_{2,}|X{3,}")


@dataclass(frozen=True, slots=True, order=True)
class Identifier:
    """Where an identifier is in a text, and of what kind."""

    start: int
    end: int
    kind: str


def identifiers(text: str) -> list[Identifier]:
    """Identifiers in a text, in order and without overlaps; those that touch each other and overlap are one.

    Raises:
        MissingExtraError: presidio or Faker is not installed.
    """
    found = [Identifier(start, end, "name") for start, end in names(text)]
    for kind, pattern in _PATTERNS:
        group = "id" if "id" in pattern.groupindex else 0
        found += [Identifier(*match.span(group), kind) for match in pattern.finditer(text)]
    found += _of_presidio(text)
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
