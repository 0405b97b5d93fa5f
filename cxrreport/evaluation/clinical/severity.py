"""Errors of reports by clinical weight: urgent, actionable or minor, by a table that a site can replace."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrreport.errors import InputError
from cxrreport.evaluation.clinical.chexpert import NOT_VALIDATED
from cxrreport.evaluation.clinical.comparison import SCORED, SCORED_PLACES, compare, read_systems
from cxrreport.evaluation.clinical.statements import Codes, Statements
from cxrreport.evaluation.clinical.vocabulary import Finding
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.statistics import Measure, mean
from cxrreport.storage.tables import read_text_table

ERRORS = ("omitted", "hallucinated", "wrong_side", "wrong_grade")
"""Columns of the table besides `finding`."""
DEFAULT_WEIGHTS = Path(__file__).with_name("error_weights.csv")


class Weight(StrEnum):
    """What an error may lead to."""

    URGENT = "urgent"
    """Immediate treatment that is not needed, or is missed."""
    ACTIONABLE = "actionable"
    """Other treatment or follow-up than the reference would lead to."""
    MINOR = "minor"
    """No other management."""
    NONE = "none"
    """Not counted."""


Weights = Mapping[tuple[Finding, str], Weight]
"""(finding, error) to its weight."""


def read_weights(path: Path) -> Weights:
    """Read a table with the column finding and those of `ERRORS`, one row for each finding except No Finding.

    Raises:
        InputError: the table cannot be read, a finding is missing, unknown or repeated, or a weight is unknown.
    """
    weights: dict[tuple[Finding, str], Weight] = {}
    names = {finding.lower(): finding for finding in SCORED}
    rows = read_text_table(path, required=("finding", *ERRORS), own=path == DEFAULT_WEIGHTS)
    for number, row in enumerate(rows, start=1):
        finding = names.get(row["finding"].lower())
        if finding is None or (finding, ERRORS[0]) in weights:
            kind = "unknown" if finding is None else "repeated"
            raise InputError(f"{path}, row {number}: the finding is {kind}; list each of {', '.join(SCORED)} once")
        for error in ERRORS:
            try:
                # `read_text_table` reads "none" as a missing cell.
                weights[finding, error] = Weight(row[error].lower() or Weight.NONE)
            except ValueError:
                raise InputError(f"{path}, row {number}: {error} is none of {', '.join(Weight)}") from None
    if missing := [finding for finding in SCORED if (finding, ERRORS[0]) not in weights]:
        raise InputError(f"{path}: no row for {', '.join(missing)}; list every finding once")
    return weights


def errors(reference: Statements, candidate: Statements) -> dict[str, NDArray[np.bool_]]:
    """For each of `ERRORS`, bool[reports, findings]: whether the candidate's statement on the finding has it.

    A side or grade is wrong if both reports state one, and they differ. Uncertain findings count as present.
    """
    expected, found = reference.positive, candidate.positive

    def differ(one: Codes, other: Codes) -> NDArray[np.bool_]:
        wrong: NDArray[np.bool_] = expected & found & (one > 0) & (other > 0) & (one != other)
        return wrong

    several = (
        expected & ~found,
        found & ~expected,
        differ(reference.sides, candidate.sides),
        differ(reference.severity, candidate.severity),
    )
    return dict(zip(ERRORS, several, strict=True))


def severity_metric(path: Path | None) -> Metric:
    """The metric `severity`: mean numbers of actionable, urgent and minor errors per report.

    Actionable errors include the urgent ones.

    Args:
        path: table of weights; `None` for `error_weights.csv` beside this module.

    Raises:
        InputError: as `read_weights`.
    """
    weights = read_weights(path or DEFAULT_WEIGHTS)
    listed = "\n".join(f"{finding},{error},{weights[finding, error]}" for finding in SCORED for error in ERRORS)

    def score(pairs: Pairs) -> dict[str, Measure]:
        compared = compare(pairs)
        counts = np.zeros((len(compared.studies), len(Weight)))
        for error, wrong in errors(compared.reference.stated, compared.candidate.stated).items():
            for finding, place in zip(SCORED, SCORED_PLACES, strict=True):
                counts[:, list(Weight).index(weights[finding, error])] += wrong[:, place]
        urgent, actionable, minor, _ = counts.T
        return {
            "actionable_errors": mean(urgent + actionable),
            "urgent_errors": mean(urgent),
            "minor_errors": mean(minor),
        }

    return Metric(
        name="severity",
        score=score,
        prepare=read_systems,
        graphs=True,
        conditions={
            "findings": f"the names of CheXpert without No Finding, from {NOT_VALIDATED}",
            "errors": "omitted and hallucinated findings, wrong sides and grades; actionable includes urgent",
            "weights": f"{'default' if path is None else 'own'} table, sha256 "
            + hashlib.sha256(listed.encode()).hexdigest(),
        },
    )
