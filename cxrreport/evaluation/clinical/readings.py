"""Agreement on the course and the side of findings, read from RadGraph's entities.

Sources that read keywords from the whole text (the temporal F1 of Libra and RadEval) count "new" for a new line as for
a new effusion. Here a course belongs to the finding that it modifies, and a denied finding has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cxrreport.evaluation.clinical.chexpert import NOT_VALIDATED, Stated
from cxrreport.evaluation.clinical.comparison import SCORED, ReadReport, compare, stated_positive
from cxrreport.evaluation.metrics import Metric, Pairs, finding_scores
from cxrreport.evaluation.metrics.label_agreement import Findings
from cxrreport.evaluation.statistics import Measure

_DETAILS: dict[str, Callable[[Stated], Iterable[str]]] = {
    "temporal_f1": lambda stated: stated.courses,
    "laterality_f1": lambda stated: stated.sides if stated_positive(stated) else (),
}
"""Number to what is compared of a statement."""


def reading_scores(pairs: Pairs) -> dict[str, Measure]:
    """Micro F1 of the courses and of the sides of findings; a study without either on both sides counts as agreed."""
    compared = compare(pairs)

    def labels(reports: Iterable[ReadReport], detail: Callable[[Stated], Iterable[str]]) -> Findings:
        return {
            study: {(name, value) for name, one in report.stated.items() if name in SCORED for value in detail(one)}
            for study, report in zip(compared.studies, reports, strict=True)
        }

    return {
        name: finding_scores(labels(compared.reference, detail), labels(compared.candidate, detail)).measure
        for name, detail in _DETAILS.items()
    }


METRIC = Metric(
    name="readings",
    score=reading_scores,
    graphs=True,
    conditions={
        "findings": f"the names of CheXpert without No Finding, from {NOT_VALIDATED}",
        "temporal": "(finding, new, worse, better, unchanged or resolved), micro F1",
        "laterality": "(finding, left or right), micro F1; denied findings have no course, unless they resolved",
    },
)
