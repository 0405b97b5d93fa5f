"""Selection of one of several sampled reports of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cxrreport.inference.decoding import Generated


class Similarity(Protocol):
    """How far reports agree with each other. It must be picklable for Ray."""

    @property
    def conditions(self) -> Mapping[str, Any]:
        """What the values depend on, as JSON values."""

    def __call__(self, groups: Sequence[Sequence[str]]) -> list[npt.NDArray[np.float64]]:
        """Agreement of every pair of reports within each group, float64[n, n] each, symmetric, from 0 to 1."""
        ...


def most_likely(samples: Sequence[Generated]) -> int:
    """Index of the sample with the highest mean log-probability per token; the first one of equals."""
    return max(range(len(samples)), key=lambda index: samples[index].mean_logprob)


def consensus(similarity: npt.NDArray[np.float64], samples: Sequence[Generated]) -> tuple[int, float]:
    """Index of the sample that agrees most with the others, and its mean agreement with them.

    This is minimum Bayes risk decoding (Eikema and Aziz 2022, arXiv 2108.04718) with the samples as references. Among
    equals, as identical samples are, the most likely one is kept.

    Args:
        similarity: float64[n, n], n at least 2; the diagonal is not used.
        samples: the n samples.
    """
    others = similarity.copy()
    np.fill_diagonal(others, 0.0)
    # Sums of the same numbers in another order differ in the last bits.
    mean = np.round(others.sum(axis=1) / (len(others) - 1), 12)
    index = max(range(len(samples)), key=lambda one: (mean[one], samples[one].mean_logprob))
    return index, float(mean[index])
