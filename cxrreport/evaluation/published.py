"""Published results of other systems, shown beside a score only where the conditions of both agree.

Papers seldom say which RadGraph model, level and case rule they used, and never which studies. What a source does not
say is not known to agree, so most of this table says why two numbers are not to be compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from cxrreport.evaluation.conditions import of_number
from cxrreport.evaluation.evaluate import MAIN

NOT_PUBLISHED = "not published"


@dataclass(frozen=True, slots=True)
class Published:
    """One published result beside a number of an evaluation.

    Args:
        system: whose it is.
        number: the evaluation's, e.g. `radgraph_partial`.
        value: as published, a fraction (CIDEr: 0 to 10).
        source: where it is published.
        differs: condition to what the source and the evaluation say; the two are comparable where it is empty.
    """

    system: str
    number: str
    value: float
    source: str
    differs: Mapping[str, tuple[Any, Any]]


def table() -> list[dict[str, Any]]:
    """The rows of `published.json`: system, number (or what its name begins with), value, source, conditions."""
    text = resources.files("cxrreport.evaluation").joinpath("published.json").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = json.loads(text)
    return rows


def beside(conditions: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Published]:
    """The published results for numbers that the evaluation has too.

    Args:
        conditions: `conditions` of `scores.json`.
        rows: as `table` gives them.
    """
    numbers = [number for one in conditions["metrics"].values() for number in one["numbers"]]
    found = []
    for row in rows:
        number = next((name for name in numbers if name.startswith(row["number"])), None)
        if number is None:
            continue
        ours, theirs = of_number(conditions, number, MAIN), row["conditions"]
        names = [name for name in ours if name != "metric"]
        differs = {
            name: (theirs.get(name, NOT_PUBLISHED), ours[name]) for name in names if theirs.get(name) != ours[name]
        }
        found.append(Published(row["system"], number, row["value"], row["source"], differs))
    return found
