"""Agreement on the side of findings, read from RadGraph's entities."""

from __future__ import annotations

import numpy as np

from cxrreport.evaluation.clinical.chexpert import NOT_VALIDATED
from cxrreport.evaluation.clinical.comparison import SCORED_PLACES, compare, read_systems
from cxrreport.evaluation.clinical.statements import Codes, Statements, micro_f1
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.statistics import Measure


def reading_scores(pairs: Pairs) -> dict[str, Measure]:
    """Micro F1 of the sides of findings; a study without a side on both sides counts as agreed."""
    compared = compare(pairs)
    reference, candidate = compared.reference.stated, compared.candidate.stated
    return {"laterality_f1": micro_f1(_sides(reference)[:, SCORED_PLACES], _sides(candidate)[:, SCORED_PLACES])}


def _sides(stated: Statements) -> Codes:
    sides: Codes = np.where(stated.positive, stated.sides, np.uint8(0))
    return sides


METRIC = Metric(
    name="readings",
    score=reading_scores,
    prepare=read_systems,
    graphs=True,
    conditions={
        "findings": f"the names of CheXpert without No Finding, from {NOT_VALIDATED}",
        "laterality": "(finding, left or right), micro F1; denied findings have no side",
    },
)
