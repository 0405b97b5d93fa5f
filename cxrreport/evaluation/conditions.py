"""Conditions of a number: everything that it depends on besides the system. Only numbers with equal ones compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cxrreport.errors import ScoreError
from cxrreport.evaluation.inputs.cohort import RULE

_SHARED = ("section", "cohort", "splits", "references")


AS_GIVEN = "as in the references"
"""The mentions of prior studies in the references, unless they were kept where the prior study was shown."""


def prior_studies(
    shown: Mapping[str, Mapping[str, str] | None], studies: Sequence[str], with_mentions: int
) -> dict[str, Any]:
    """What the systems were shown of prior studies, and whether the references mention them.

    Args:
        shown: system to `Predictions.priors`.
        studies: the scored studies.
        with_mentions: number of references that were read as they were before `ingest` removed mentions from them.
    """
    counts = {
        name: None if priors is None else sum(bool(priors.get(study)) for study in studies)
        for name, priors in shown.items()
    }
    return {
        "mentions": f"kept in {with_mentions} studies whose prior study was shown" if with_mentions else AS_GIVEN,
        "prior_shown": {
            name: "not known" if count is None else f"in {count} of {len(studies)} studies"
            for name, count in counts.items()
        },
    }


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
            if (mentions := conditions.get("mentions", AS_GIVEN)) != AS_GIVEN:
                shared["mentions"] = mentions
            return {"metric": metric, **own, **shared, "inputs": conditions["inputs"][system]}
    known = [number for one in conditions["metrics"].values() for number in one["numbers"]]
    raise ScoreError(f"{number!r} is not among the numbers of this evaluation: {', '.join(known)}")
