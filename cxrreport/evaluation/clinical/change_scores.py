"""Agreement on how findings have changed since the prior study, and changes that no prior study supports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cxrreport.evaluation.clinical.change_words import Change
from cxrreport.evaluation.clinical.changes import FindingChange, changes
from cxrreport.evaluation.clinical.vocabulary import Finding
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.statistics import Floats, Measure, PatientBootstrap, f1_of_counts, ratio

HALLUCINATED_CHANGE = "hallucinated_change"


def change_scores(pairs: Pairs) -> dict[str, Measure]:
    """The metric `changes`.

    `change_f1` is the micro F1 of pairs of a finding and its change; it is undefined if neither side states one in any
    study. `hallucinated_change` is the share of the reports that state a change among those for which no prior study
    was shown; it is undefined if there are none, or if what was shown is not known.
    """
    read = _read(pairs)
    counts = _counts(read, lambda _: True)
    hallucinated = np.zeros((len(read), 2))
    if pairs.candidate_priors is not None:
        for row, (study, (_, stated)) in enumerate(zip(pairs.references, read, strict=True)):
            if not pairs.candidate_priors.get(study):
                hallucinated[row] = bool(stated), 1
    return {
        # F1 is undefined for a study without a change on either side, which is correct.
        "change_f1": Measure(counts, f1_of_counts, np.nan_to_num(f1_of_counts(counts), nan=1.0)),
        HALLUCINATED_CHANGE: Measure(hallucinated, ratio, ratio(hallucinated)),
    }


METRIC = Metric(
    name="changes",
    score=change_scores,
    conditions={
        "changes": "(finding, new, worse, unchanged, improved or resolved), micro F1; read from the text by rules that "
        "radiologists have not validated",
        "hallucinated": "reports without a shown prior study that state a change",
    },
)


def changes_by_group(pairs: Pairs, bootstrap: PatientBootstrap) -> dict[str, dict[str, Any]]:
    """Counts of studies and F1 with its interval for each finding, and for each kind of change over all findings.

    Groups that neither side names are left out.
    """
    groups: dict[str, Callable[[FindingChange], bool]] = {
        **{finding.value: lambda one, finding=finding: one[0] is finding for finding in Finding},  # type: ignore[misc]
        **{change.value: lambda one, change=change: one[1] is change for change in Change},  # type: ignore[misc]
    }
    read = _read(pairs)
    table = {}
    for name, holds in groups.items():
        counts = _counts(read, holds)
        agreed, hallucinated, omitted = (int(one) for one in counts.sum(axis=0))
        if agreed or hallucinated or omitted:
            f1 = bootstrap.interval(Measure(counts, f1_of_counts, f1_of_counts(counts)))
            table[name] = {"agreed": agreed, "hallucinated": hallucinated, "omitted": omitted, "change_f1": f1}
    return table


_Read = Sequence[tuple[frozenset[FindingChange], frozenset[FindingChange]]]
"""The changes that reference and candidate of each study state."""


def _read(pairs: Pairs) -> _Read:
    return [(changes(text), changes(pairs.candidates[study])) for study, text in pairs.references.items()]


def _counts(read: _Read, holds: Callable[[FindingChange], bool]) -> Floats:
    """float64[studies, 3]: changes of both sides, of the candidate only, of the reference only."""
    rows = np.zeros((len(read), 3))
    for row, sides in enumerate(read):
        reference, candidate = ({*filter(holds, one)} for one in sides)
        rows[row] = len(reference & candidate), len(candidate - reference), len(reference - candidate)
    return rows
