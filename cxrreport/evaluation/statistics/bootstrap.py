"""Intervals by a bootstrap over patients.

`scipy.stats.bootstrap` resamples the indices of patients; the statistic is computed from all studies of the sampled
patients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cxrreport.evaluation.statistics.measures import Floats, Measure
from cxrreport.records import Interval

CONFIDENCE = 0.95
_BLOCK = 256  # resamples at a time


class PatientBootstrap:
    """Percentile intervals from resamples of patients, each with all of its studies.

    Resamples are drawn once, so differences between two systems are paired.

    Args:
        patients: patient of each study, in the order of every measure's rows.
        samples: number of resamples.
    """

    def __init__(self, patients: Sequence[str], *, samples: int, seed: int) -> None:
        names, self._patient = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
        self.patients = len(names)
        self._samples = samples
        self._seed = seed

    @cached_property
    def _draws(self) -> NDArray[np.float32]:
        """How often each resample contains each patient: float32[patients, samples]."""
        from scipy import stats

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
        """The score with its bounds."""
        return self._bounds(measure.value, self._sampled(measure))

    def difference(self, system: Measure, baseline: Measure) -> Interval:
        """Score of `system` minus that of `baseline`, resampled together."""
        return self._bounds(system.value - baseline.value, self._sampled(system) - self._sampled(baseline))

    def _sampled(self, measure: Measure) -> Floats:
        if self.patients < 2:  # one patient says nothing about others
            return np.array([])
        blocks = [
            measure.weighted(self._draws[self._patient, first : first + _BLOCK].T.astype(np.float64))
            for first in range(0, self._samples, _BLOCK)
        ]
        return np.concatenate(blocks)

    def _bounds(self, value: float, samples: Floats) -> Interval:
        # Resamples in which the score is undefined are excluded.
        defined = samples[~np.isnan(samples)]
        if not len(defined) or math.isnan(value):
            return Interval(value, math.nan, math.nan)
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(defined, [tail, 1 - tail])
        return Interval(value, float(low), float(high))
