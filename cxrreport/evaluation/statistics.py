"""Scores of a set of studies as functions of sums, and their intervals by a bootstrap over patients.

Every score here is a function of sums over studies: a mean is sum over count, corpus BLEU is a function of summed
n-gram counts, micro F1 one of summed hits. So a resample of patients is a row of counts, its sums are one matrix
product, and a corpus score is computed anew for every resample rather than averaged over studies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrreport.records import Interval

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
_BLOCK = 256  # resamples whose counts are converted to float at a time


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric of one system.

    Args:
        terms: float64[studies, k], what is summed over studies.
        score: from sums float64[..., k] to values float64[...]; NaN where the score is undefined.
        values: float64[studies], the value shown for each study.
    """

    terms: Floats
    score: Callable[[Floats], Floats]
    values: Floats

    def __post_init__(self) -> None:
        if self.terms.ndim != 2 or self.values.shape != (len(self.terms),):
            raise ValueError(f"terms {self.terms.shape} and values {self.values.shape} do not belong together")

    @property
    def value(self) -> float:
        """The score of all studies together."""
        return float(self.score(self.terms.sum(axis=0)))


def ratio(sums: Floats) -> Floats:
    """First sum over second, NaN where the second is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def mean(values: Sequence[float] | Floats) -> Measure:
    """The mean of one value per study."""
    array = np.asarray(values, dtype=np.float64)
    return Measure(np.stack([array, np.ones_like(array)], axis=1), ratio, array)


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
        rng = np.random.default_rng(seed)
        chances = np.full(self.patients, 1.0 / self.patients)
        self._draws = rng.multinomial(self.patients, chances, size=samples).astype(np.uint16)

    def interval(self, measure: Measure) -> Interval:
        """The score and its bounds."""
        return self._bounds(measure.value, measure.score(self._sums(measure)))

    def difference(self, system: Measure, control: Measure) -> Interval:
        """Score of `system` less that of `control`, resampled together."""
        samples = system.score(self._sums(system)) - control.score(self._sums(control))
        return self._bounds(system.value - control.value, samples)

    def _sums(self, measure: Measure) -> Floats:
        by_patient = np.zeros((self.patients, measure.terms.shape[1]))
        np.add.at(by_patient, self._patient, measure.terms)
        blocks = [
            self._draws[first : first + _BLOCK].astype(np.float64) @ by_patient
            for first in range(0, len(self._draws), _BLOCK)
        ]
        return np.concatenate(blocks)

    def _bounds(self, value: float, samples: Floats) -> Interval:
        # One patient says nothing about others; a score that is undefined in a resample is left out of it.
        defined = samples[~np.isnan(samples)]
        if self.patients < 2 or not len(defined) or math.isnan(value):
            return Interval(value, math.nan, math.nan)
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(defined, [tail, 1 - tail])
        return Interval(value, float(low), float(high))
