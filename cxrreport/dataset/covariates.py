"""Who and with what: the few facts for subgroup analysis that may leave a header, and only when they are asked for.

Each is reduced before it is kept: years of age to bands of ten with 90 and over pooled (45 CFR 164.514(b)(2)(i)(C)),
the manufacturer to one of a list of names, since a free text may hold anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from datetime import date

from cxrreport.records import View

_OLDEST = 90
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}  # units of the VR AS, PS3.5 6.2
_MAKERS = {
    **{name: name.title() for name in ("AGFA", "CANON", "CARESTREAM", "HITACHI", "HOLOGIC", "KODAK", "PHILIPS")},
    **{name: name.title() for name in ("RAYENCE", "SAMSUNG", "SHIMADZU", "SIEMENS", "SWISSRAY", "TOSHIBA", "VARIAN")},
    "DRGEM": "DRGEM",
    "FUJI": "Fujifilm",
    "GE": "GE",
    "GENERAL ELECTRIC": "GE",
    "KONICA": "Konica Minolta",
    "LUMISYS": "Lumisys",
    "OLDELFT": "Oldelft",
    "VIEWORKS": "Vieworks",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Covariates:
    """Facts on one image; an empty string where a fact is not known.

    Args:
        sex: `F`, `M` or `O`, as in Patient's Sex (0010,0040).
        age_band: `0-9` to `80-89`, or `90+`; years at the time of the study.
        projection: `PA` or `AP`.
        manufacturer: of the equipment, or `other`.
    """

    sex: str = ""
    age_band: str = ""
    projection: str = ""
    manufacturer: str = ""


COVARIATES = tuple(field.name for field in fields(Covariates))


def reduce_covariates(
    *, view: View, sex: str = "", age: str = "", manufacturer: str = "", birth_date: str = "", study_date: str = ""
) -> Covariates:
    """Reduce what a header or a table says.

    Args:
        sex: any word that begins with F, M or O; others count as not known.
        age: as in DICOM (`045Y`, `011M`), or a number of years.
        manufacturer: free text.
        view: what was found on the projection.
        birth_date: YYYYMMDD, used with `study_date` where there is no age.
        study_date: YYYYMMDD.
    """
    return Covariates(
        sex=sex[:1].upper() if sex[:1].upper() in {"F", "M", "O"} else "",
        age_band=_band(_years(age) if age else _years_between(birth_date, study_date)),
        projection=view.value if view in (View.PA, View.AP) else "",
        manufacturer=_maker(manufacturer),
    )


def _years(age: str) -> float | None:
    match = re.fullmatch(r"(\d{1,3})(?:\.\d*)?([YMWD]?)", age.strip().upper())
    return int(match[1]) * _YEARS[match[2] or "Y"] if match else None


def _years_between(birth_date: str, study_date: str) -> float | None:
    try:
        born, seen = (date.fromisoformat(each) for each in (birth_date, study_date))
    except ValueError:
        return None
    return (seen - born).days / 365.2425


def _band(years: float | None) -> str:
    if years is None or not 0 <= years < 150:
        return ""
    if years >= _OLDEST:
        return f"{_OLDEST}+"
    decade = int(years // 10) * 10
    return f"{decade}-{decade + 9}"


def _maker(name: str) -> str:
    words = " ".join(re.findall(r"[A-Z]+", name.upper()))
    for fragment, maker in _MAKERS.items():
        if re.search(rf"\b{fragment}", words) if fragment != "GE" else re.search(r"\bGE\b", words):
            return maker
    return "other" if words else ""
