"""Resampling of patients: bootstrap intervals, paired permutation tests, and Holm's correction for several tests.

All studies of a patient stay together. `scipy.stats` draws the resamples and permutations of indices; scores are
computed from sums over the studies (see `measures`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cxrreport.evaluation.statistics.measures import Floats, Measure
from cxrreport.records import Interval

CONFIDENCE = 0.95
_BLOCK = 256  # resamples or permutations at a time
_DRAWN = 32  # resamples that are drawn at a time


def _indices(patients: Sequence[str]) -> NDArray[np.int64]:
    """The number of the patient of each study, from 0."""
    _, numbers = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
    return numbers


class PatientBootstrap:
    """Percentile intervals from resamples of patients, each with all of its studies.

    Resamples are drawn once, so differences between two systems are paired.

    Args:
        patients: patient of each study, in the order of every measure's rows.
        samples: number of resamples.
    """

    def __init__(self, patients: Sequence[str], *, samples: int, seed: int) -> None:
        self._patient = _indices(patients)
        self.patients = len(set(patients))
        self._samples = samples
        self._seed = seed

    @cached_property
    def _draws(self) -> NDArray[np.uint16]:
        """How often each resample contains each patient: uint16[samples, patients]."""
        from scipy import stats

        blocks: list[NDArray[np.uint16]] = []

        def counted(drawn: NDArray[np.int64], axis: int = -1) -> Floats:  # noqa: ARG001
            # What scipy does with the values of a statistic would take several copies of all counts.
            blocks.append(
                np.stack(
                    [np.bincount(one, minlength=self.patients) for one in drawn], dtype=np.uint16, casting="unsafe"
                )
            )
            return np.zeros(len(drawn))

        stats.bootstrap(
            (np.arange(self.patients),),
            counted,
            n_resamples=self._samples,
            batch=_DRAWN,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(self._seed),
        )
        return np.concatenate(blocks)

    def interval(self, measure: Measure) -> Interval:
        """The score with its bounds."""
        return self.bounds(measure.value, self.sampled(measure))

    def difference(self, system: Measure, baseline: Measure) -> Interval:
        """Score of `system` minus that of `baseline`, resampled together."""
        return self.bounds(system.value - baseline.value, self.sampled(system) - self.sampled(baseline))

    def sampled(self, measure: Measure) -> Floats:
        """The score of every resample, float64[samples]; empty for one patient."""
        if self.patients < 2:  # one patient says nothing about others
            return np.array([])
        starts = range(0, self._samples, _BLOCK)
        if measure.resampled is not None:
            weights = (self._draws[first : first + _BLOCK, self._patient].astype(np.float64) for first in starts)
            return np.concatenate([measure.weighted(one) for one in weights])
        # A resample has all studies of a patient equally often, so their terms are added up first.
        terms = np.zeros((self.patients, measure.terms.shape[1]))
        np.add.at(terms, self._patient, measure.terms)
        blocks = (self._draws[first : first + _BLOCK].astype(np.float64) @ terms for first in starts)
        return np.concatenate([measure.score(sums) for sums in blocks])

    def bounds(self, value: float, samples: Floats) -> Interval:
        """A score, or a difference of two, with its bounds from its values in the resamples."""
        # Resamples in which the score is undefined are excluded.
        defined = samples[~np.isnan(samples)]
        if not len(defined) or math.isnan(value):
            return Interval(value, math.nan, math.nan)
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(defined, [tail, 1 - tail])
        return Interval(value, float(low), float(high))


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

    patient, count = _indices(patients), len(set(patients))
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
