"""Agreement on the side of findings, read from RadGraph's entities."""

from __future__ import annotations

from collections.abc import Sequence

from cxrreport.evaluation.clinical.chexpert import NOT_VALIDATED
from cxrreport.evaluation.clinical.comparison import SCORED, ReadReport, compare, stated_positive
from cxrreport.evaluation.metrics import Metric, Pairs, finding_scores
from cxrreport.evaluation.metrics.label_agreement import Findings
from cxrreport.evaluation.statistics import Measure


def reading_scores(pairs: Pairs) -> dict[str, Measure]:
    """Micro F1 of the sides of findings; a study without a side on both sides counts as agreed."""
    compared = compare(pairs)

    def sides(reports: Sequence[ReadReport]) -> Findings:
        return {
            study: {
                (name, side)
                for name, one in report.stated.items()
                if name in SCORED and stated_positive(one)
                for side in one.sides
            }
            for study, report in zip(compared.studies, reports, strict=True)
        }

    return {"laterality_f1": finding_scores(sides(compared.reference), sides(compared.candidate)).measure}


METRIC = Metric(
    name="readings",
    score=reading_scores,
    graphs=True,
    conditions={
        "findings": f"the names of CheXpert without No Finding, from {NOT_VALIDATED}",
        "laterality": "(finding, left or right), micro F1; denied findings have no side",
    },
)
