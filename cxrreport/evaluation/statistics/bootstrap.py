"""Scores of a set of studies, their intervals by a bootstrap over patients, and paired tests of two systems.

Almost every score is a function of sums over studies: a mean is sum over count, corpus BLEU is a function of summed
n-gram counts, micro F1 one of summed hits. So a resample of patients is a row of weights, its sums are one matrix
product, and a corpus score is computed anew for every resample rather than averaged over studies.

Resamples and permutations are drawn by scipy (`scipy.stats.bootstrap`, `scipy.stats.permutation_test`). They are drawn
over the indices of patients: what scipy resamples is which patients are in, and the statistic is computed from all of
their studies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cxrreport.records import Interval

Floats = NDArray[np.float64]
Score = Callable[[Floats], Floats]
"""From sums float64[..., k] to values float64[...]; NaN where the score is undefined."""

CONFIDENCE = 0.95
_BLOCK = 256  # resamples at a time

FORMS: dict[str, Score] = {}
"""The scores that can be computed again from a file of terms, by name; see `form`."""


def form(name: str) -> Callable[[Score], Score]:
    """Give a score function a name, under which files of terms (`compare`) can refer to it."""

    def named(score: Score) -> Score:
        FORMS[name] = score
        return score

    return named


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of one system.

    Args:
        terms: float64[studies, k], what is summed over studies.
        score: from the sums to the number.
        values: float64[studies], the value shown for each study.
        resampled: where the number is no function of sums: from weights float64[samples, studies], how often each
            study is in the sample, to float64[samples]. `terms` and `score` then give its value for all studies.
    """

    terms: Floats
    score: Score
    values: Floats
    resampled: Callable[[Floats], Floats] | None = None

    def __post_init__(self) -> None:
        if self.terms.ndim != 2 or self.values.shape != (len(self.terms),):
            raise ValueError(f"terms {self.terms.shape} and values {self.values.shape} do not belong together")

    @property
    def value(self) -> float:
        """The score of all studies together."""
        return float(self.score(self.terms.sum(axis=0)))

    def weighted(self, weights: Floats) -> Floats:
        """The score of samples of studies, float64[samples], from their weights, float64[samples, studies]."""
        return self.resampled(weights) if self.resampled is not None else self.score(weights @ self.terms)


@form("mean")
def ratio(sums: Floats) -> Floats:
    """First sum over second, NaN where the second is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def mean(values: Sequence[float] | Floats) -> Measure:
    """The mean of one value per study."""
    array = np.asarray(values, dtype=np.float64)
    return Measure(np.stack([array, np.ones_like(array)], axis=1), ratio, array)


@form("f1")
def f1_of_counts(sums: Floats) -> Floats:
    """F1 from summed true positives, false positives and false negatives; NaN where all are zero."""
    hits, false, missed = sums[..., 0], sums[..., 1], sums[..., 2]
    return ratio(np.stack([2 * hits, 2 * hits + false + missed], axis=-1))


class PatientBootstrap:
    """Percentile intervals from resamples of patients, each with all of its studies.

    Resamples are drawn once, so differences between two systems are paired.

    Args:
        patients: the patient of each study, in the order of every measure's rows.
        samples: number of resamples.
    """

    def __init__(self, patients: Sequence[str], *, samples: int, seed: int) -> None:
        names, self._patient = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
        self.patients = len(names)
        self._samples = samples
        self._seed = seed

    @cached_property
    def _draws(self) -> NDArray[np.float32]:
        """How often each patient is in each resample: float32[patients, samples]."""

        def counted(drawn: NDArray[np.int64], axis: int = -1) -> NDArray[np.float32]:  # noqa: ARG001
            rows = drawn.reshape(-1, self.patients) + self.patients * np.arange(drawn.size // self.patients)[:, None]
            counts = np.bincount(rows.ravel(), minlength=drawn.size).reshape(-1, self.patients)
            return np.moveaxis(counts.astype(np.float32), -1, 0)

        result = stats.bootstrap(
            (np.arange(self.patients),),
            counted,
            n_resamples=self._samples,
            batch=_BLOCK,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(self._seed),
        )
        draws: NDArray[np.float32] = result.bootstrap_distribution
        return draws

    def interval(self, measure: Measure) -> Interval:
        """The score and its bounds."""
        return self._bounds(measure.value, self._sampled(measure))

    def difference(self, system: Measure, control: Measure) -> Interval:
        """Score of `system` less that of `control`, resampled together."""
        return self._bounds(system.value - control.value, self._sampled(system) - self._sampled(control))

    def _sampled(self, measure: Measure) -> Floats:
        if self.patients < 2:  # one patient says nothing about others
            return np.array([])
        blocks = [
            measure.weighted(self._draws[self._patient, first : first + _BLOCK].T.astype(np.float64))
            for first in range(0, self._samples, _BLOCK)
        ]
        return np.concatenate(blocks)

    def _bounds(self, value: float, samples: Floats) -> Interval:
        # A score that is undefined in a resample is left out of it.
        defined = samples[~np.isnan(samples)]
        if not len(defined) or math.isnan(value):
            return Interval(value, math.nan, math.nan)
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(defined, [tail, 1 - tail])
        return Interval(value, float(low), float(high))


def p_value(system: Measure, control: Measure, patients: Sequence[str], *, samples: int, seed: int) -> float:
    """Two-sided p-value of a paired permutation test: under the null hypothesis, which of the two systems wrote a
    patient's reports does not matter, so all reports of a patient are exchanged together or not at all.

    Exact where there are no more than `samples` exchanges; NaN where a score is undefined or there is one patient.

    Args:
        system: a number of one system.
        control: the same number of the other, with the same studies in the same order.
        patients: the patient of each of them.
        samples: number of random exchanges.
        seed: of the exchanges.
    """
    _, patient = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
    count = int(patient.max()) + 1
    if count < 2 or math.isnan(system.value - control.value):
        return math.nan
    ours, theirs = (np.zeros((count, measure.terms.shape[1])) for measure in (system, control))
    np.add.at(ours, patient, system.terms)
    np.add.at(theirs, patient, control.terms)

    def statistic(crossed: Floats, straight: Floats, axis: int = -1) -> Floats:  # noqa: ARG001
        # Given as 0 and 1, and exchanged by scipy: `crossed` is 1 where a patient's reports change places.
        one = system.score(straight @ ours + crossed @ theirs)
        other = control.score(crossed @ ours + straight @ theirs)
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
    """p-values corrected for their number, by the step-down method of Holm (Scand. J. Statist. 6, 1979); NaN stays."""
    tested = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    corrected = dict(p_values)
    highest = 0.0
    for place, (p, name) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - place)))
        corrected[name] = highest
    return corrected
