"""Projection of a radiograph, reduced to what a choice among the images of a study needs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cxrreport.records import View

_LATERAL_WORDS = frozenset(
    {"LATERAL", "LAT", "LL", "RL", "LLAT", "RLAT", "XTABLE", "OBLIQUE", "LAO", "RAO", "LPO", "RPO", "SWIMMERS"}
)
_PREFERENCE = {View.PA: 0, View.AP: 1, View.UNKNOWN: 2, View.LATERAL: 3}


def view_of(position: str = "", code_meaning: str = "", orientation: Sequence[str] = ()) -> View:
    """The view that a header or a metadata table names; the first of the three that says anything decides.

    Obliques count as laterals, and a lateral decubitus (the patient lies on a side) as a frontal: what is asked of a
    view is whether it shows the chest from the front.

    Args:
        position: View Position (0018,5101), also with additions as in `AP LLD` (decubitus).
        code_meaning: Code Meaning of the View Code Sequence (0054,0220), for example `postero-anterior`.
        orientation: directions of rows and columns by Patient Orientation (0020,0020): one between front and back and
            one between head and feet are those of a lateral.
    """
    words = re.findall(r"[A-Z]+", position.upper())
    if _LATERAL_WORDS.intersection(words) and "DECUBITUS" not in words:
        return View.LATERAL
    if "PA" in words:
        return View.PA
    if "AP" in words:
        return View.AP
    meaning = code_meaning.lower().replace("-", "").replace(" ", "")
    if ("lateral" in meaning or "oblique" in meaning) and "decubitus" not in meaning:
        return View.LATERAL
    if "posteroanterior" in meaning:
        return View.PA
    if "anteroposterior" in meaning:
        return View.AP
    dominant = {direction[:1] for direction in orientation}
    if dominant & {"A", "P"} and dominant & {"H", "F"}:
        return View.LATERAL
    return View.UNKNOWN


def preference(view: View) -> int:
    """Rank in the choice of one image per study: PA, AP, unknown, lateral."""
    return _PREFERENCE[view]
