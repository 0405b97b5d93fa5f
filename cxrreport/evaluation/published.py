"""Published results of other systems, with the conditions in which they differ from an evaluation.

Papers rarely state the RadGraph model, level and case rule, and never the list of studies. A condition that is not
published counts as different, so this table mostly shows why two numbers are not comparable.
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
        ours: score of the evaluated system, as `{value, low, high}` of `scores.json`.
        system: name of the published system.
        number: number of the evaluation, for example `radgraph_partial`.
        value: published value in [0, 1] (CIDEr: 0 to 10).
        source: publication.
        differs: condition to the values of the source and of the evaluation; empty if the two are comparable.
    """

    ours: Mapping[str, float | None]
    system: str
    number: str
    value: float
    source: str
    differs: Mapping[str, tuple[Any, Any]]


def published_results() -> list[dict[str, Any]]:
    """The rows of `published.json`: system, number (or the beginning of its name), value, source, conditions."""
    text = resources.files("cxrreport.evaluation").joinpath("published.json").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = json.loads(text)
    return rows


def beside(scores: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Published]:
    """The published results for the numbers of an evaluation, beside its own.

    Args:
        scores: content of `scores.json`.
        rows: rows of `published_results`.
    """
    conditions = scores["conditions"]
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
        own = scores["systems"][MAIN][number]
        found.append(Published(own, row["system"], number, row["value"], row["source"], differs))
    return found
