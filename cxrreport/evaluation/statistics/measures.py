"""Scores of a set of studies as functions of sums over studies.

A mean is sum over count, corpus BLEU a function of summed n-gram counts, micro F1 a function of summed true and false
positives. A resample of patients is then a row of weights, its sums are one matrix product, and a corpus score is
recomputed for every resample instead of averaged over studies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Score = Callable[[Floats], Floats]
"""From sums float64[..., k] to values float64[...]; NaN if the score is undefined."""

FORMS: dict[str, Score] = {}
"""Score functions by the name under which `terms.parquet` refers to them; see `form`."""


def form(name: str) -> Callable[[Score], Score]:
    """Register a score function under a name, so that `compare` can recompute it from `terms.parquet`."""

    def register(score: Score) -> Score:
        FORMS[name] = score
        return score

    return register


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of one system.

    Args:
        terms: float64[studies, k], the terms that are summed over studies.
        score: function from the sums to the number.
        values: float64[studies], the value reported for each study.
        resampled: for a number that is not a function of sums: function from weights float64[samples, studies], how
            often each sample contains each study, to float64[samples]. `terms` and `score` then give the value of all
            studies together.
    """

    terms: Floats
    score: Score
    values: Floats
    resampled: Callable[[Floats], Floats] | None = None

    def __post_init__(self) -> None:
        if self.terms.ndim != 2 or self.values.shape != (len(self.terms),):
            raise ValueError(f"terms {self.terms.shape} and values {self.values.shape} have different numbers of rows")

    @property
    def value(self) -> float:
        """The score of all studies together."""
        return float(self.score(self.terms.sum(axis=0)))

    def weighted(self, weights: Floats) -> Floats:
        """The score of samples of studies, float64[samples], from their weights, float64[samples, studies]."""
        return self.resampled(weights) if self.resampled is not None else self.score(weights @ self.terms)


@form("mean")
def ratio(sums: Floats) -> Floats:
    """First sum over second, NaN if the second is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def mean(values: Sequence[float] | Floats) -> Measure:
    """The mean of one value per study."""
    array = np.asarray(values, dtype=np.float64)
    return Measure(np.stack([array, np.ones_like(array)], axis=1), ratio, array)


@form("f1")
def f1_of_counts(sums: Floats) -> Floats:
    """F1 from summed true positives, false positives and false negatives; NaN if all are zero."""
    true, false, missed = sums[..., 0], sums[..., 1], sums[..., 2]
    return ratio(np.stack([2 * true, 2 * true + false + missed], axis=-1))
