"""Paired permutation test of two systems by patient, and Holm's correction for several tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from cxrreport.evaluation.statistics.measures import Floats, Measure

_BLOCK = 256  # permutations at a time


def p_value(system: Measure, baseline: Measure, patients: Sequence[str], *, samples: int, seed: int) -> float:
    """Two-sided p-value of a paired permutation test.

    Under the null hypothesis it does not matter which of the two systems wrote a patient's reports, so all reports of a
    patient are exchanged together or not at all. The test is exact if there are at most `samples` exchanges.

    Args:
        system: a number of one system.
        baseline: the same number of the other, for the same studies in the same order.
        patients: patient of each study.
        samples: number of random exchanges.
        seed: seed of the exchanges.

    Returns:
        the p-value; NaN if a score is undefined or there is only one patient.
    """
    from scipy import stats

    _, patient = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
    count = int(patient.max()) + 1
    if count < 2 or math.isnan(system.value - baseline.value):
        return math.nan
    ours, theirs = (np.zeros((count, measure.terms.shape[1])) for measure in (system, baseline))
    np.add.at(ours, patient, system.terms)
    np.add.at(theirs, patient, baseline.terms)

    def statistic(crossed: Floats, straight: Floats, axis: int = -1) -> Floats:  # noqa: ARG001
        # scipy exchanges zeros and ones: `crossed` is 1 for the patients whose reports change sides.
        one = system.score(straight @ ours + crossed @ theirs)
        other = baseline.score(crossed @ ours + straight @ theirs)
        return np.nan_to_num(one - other)

    result = stats.permutation_test(
        (np.zeros(count), np.ones(count)),
        statistic,
        permutation_type="samples",
        vectorized=True,
        n_resamples=samples,
        batch=_BLOCK,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values corrected by the step-down method of Holm (Scand. J. Statist. 6, 1979); NaN stays NaN."""
    tested = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    corrected = dict(p_values)
    highest = 0.0
    for place, (p, name) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - place)))
        corrected[name] = highest
    return corrected
