"""Conditions of a number: everything that it depends on besides the system. Only numbers with equal ones compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cxrreport.errors import ScoreError
from cxrreport.evaluation.inputs.cohort import RULE

_SHARED = ("section", "cohort", "splits", "references")


def of_number(conditions: Mapping[str, Any], number: str, system: str) -> dict[str, Any]:
    """Collect the conditions of one number of an evaluation in one flat mapping.

    Args:
        conditions: `conditions` of `scores.json`.
        number: name of the number, for example `radgraph_partial`.
        system: name of the system, which determines `inputs`.

    Raises:
        ScoreError: the evaluation has no such number.
    """
    for metric, one in conditions["metrics"].items():
        if number in one["numbers"]:
            own = {name: value for name, value in one.items() if name != "numbers"}
            shared = {name: conditions[name] for name in _SHARED}
            # Earlier versions excluded studies with failed candidates; on an equal cohort they scored the same texts.
            shared["candidates"] = conditions.get("candidates", RULE)
            return {"metric": metric, **own, **shared, "inputs": conditions["inputs"][system]}
    known = [number for one in conditions["metrics"].values() for number in one["numbers"]]
    raise ScoreError(f"{number!r} is not among the numbers of this evaluation: {', '.join(known)}")
