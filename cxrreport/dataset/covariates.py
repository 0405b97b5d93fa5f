"""Covariates for subgroup analysis: the only facts on patients that `ingest` can keep, and only on request.

Each is coarsened first: age to bands of ten years with 90 and over pooled (45 CFR 164.514(b)(2)(i)(C)), the
manufacturer to a name from a fixed list, because free text may contain anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from datetime import date

from cxrreport.records import View

_OLDEST = 90
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}  # units of the VR AS, PS3.5 6.2
_MANUFACTURERS = {
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
    """Covariates of one image; an unknown one is an empty string.

    Args:
        sex: `F`, `M` or `O`, as in Patient's Sex (0010,0040).
        age_band: age in years at the time of the study: `0-9` to `80-89`, or `90+`.
        projection: `PA` or `AP`.
        manufacturer: manufacturer of the equipment, or `other`.
    """

    sex: str = ""
    age_band: str = ""
    projection: str = ""
    manufacturer: str = ""


COVARIATES = tuple(field.name for field in fields(Covariates))


def reduce_covariates(
    *, view: View, sex: str = "", age: str = "", manufacturer: str = "", birth_date: str = "", study_date: str = ""
) -> Covariates:
    """Coarsen the values of a header or a table.

    Args:
        sex: a word that begins with F, M or O; other values count as unknown.
        age: as in DICOM (`045Y`, `011M`), or a number of years.
        manufacturer: free text.
        view: projection of the image.
        birth_date: YYYYMMDD, used with `study_date` if there is no age.
        study_date: YYYYMMDD.
    """
    return Covariates(
        sex=sex[:1].upper() if sex[:1].upper() in {"F", "M", "O"} else "",
        age_band=_band(_years(age) if age else _years_between(birth_date, study_date)),
        projection=view.value if view in (View.PA, View.AP) else "",
        manufacturer=_manufacturer(manufacturer),
    )


def _years(age: str) -> float | None:
    match = re.fullmatch(r"(\d{1,3})(?:\.\d*)?([YMWD]?)", age.strip().upper())
    return int(match[1]) * _YEARS[match[2] or "Y"] if match else None


def _years_between(birth_date: str, study_date: str) -> float | None:
    try:
        birth, study = (date.fromisoformat(each) for each in (birth_date, study_date))
    except ValueError:
        return None
    return (study - birth).days / 365.2425


def _band(years: float | None) -> str:
    if years is None or not 0 <= years < 150:
        return ""
    if years >= _OLDEST:
        return f"{_OLDEST}+"
    decade = int(years // 10) * 10
    return f"{decade}-{decade + 9}"


def _manufacturer(name: str) -> str:
    words = " ".join(re.findall(r"[A-Z]+", name.upper()))
    for fragment, manufacturer in _MANUFACTURERS.items():
        if re.search(rf"\b{fragment}", words) if fragment != "GE" else re.search(r"\bGE\b", words):
            return manufacturer
    return "other" if words else ""
