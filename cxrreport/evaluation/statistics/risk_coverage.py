"""Selective generation: how wrong the reports are that the model is sure of, and how sure it must be.

Reports are accepted from the most confident down. Coverage is the share that is accepted, risk the mean loss of what
is accepted, and the area under risk over coverage is the mean risk over all coverages (El-Yaniv and Wiener 2010;
Geifman and El-Yaniv 2017, arXiv 1705.08500). Reports of equal confidence are accepted together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cxrreport.evaluation.statistics.bootstrap import Floats, Measure, PatientBootstrap, mean, ratio


@dataclass(frozen=True, slots=True)
class Curve:
    """Risk over coverage, one element per distinct confidence, from the highest down.

    Args:
        thresholds: least confidence that is accepted.
        coverage: share of the reports that are accepted, in (0, 1].
        risk: mean loss of these.
    """

    thresholds: Floats
    coverage: Floats
    risk: Floats


def curve(confidence: Floats, loss: Floats) -> Curve:
    """Risk over coverage.

    Args:
        confidence: float64[studies], higher is surer.
        loss: float64[studies], 0 for a report that is right.
    """
    thresholds, group = _groups(confidence)
    accepted = np.cumsum(np.bincount(group))
    risk = np.cumsum(np.bincount(group, weights=loss)) / accepted
    return Curve(thresholds, accepted / len(loss), risk)


def area(confidence: Floats, loss: Floats) -> Measure:
    """The area under risk over coverage; no sum over studies, so every resample is ordered anew by its weights."""
    order = np.argsort(-confidence, kind="stable")
    _, group = _groups(confidence)
    starts = np.unique(group[order], return_index=True)[1]

    def resampled(weights: Floats) -> Floats:
        sizes = np.add.reduceat(weights[:, order], starts, axis=1)
        losses = np.add.reduceat((weights * loss)[:, order], starts, axis=1)
        accepted = np.cumsum(sizes, axis=1)
        risk = np.divide(np.cumsum(losses, axis=1), accepted, out=np.zeros_like(accepted), where=accepted > 0)
        return np.asarray((sizes * risk).sum(axis=1) / weights.sum(axis=1))

    # In all studies together each adds the risk at its own confidence.
    risk = curve(confidence, loss).risk[group]
    return Measure(np.stack([risk, np.ones_like(risk)], axis=1), ratio, loss, resampled)


def summary(confidence: Floats, loss: Floats, targets: Sequence[float], bootstrap: PatientBootstrap) -> dict[str, Any]:
    """The area with its interval beside that of an order by chance and the best possible one, and for every target risk
    the threshold with the greatest coverage that keeps it, None where none does.

    The thresholds are chosen on the studies that they are measured on: the upper bound of their risk, and better other
    studies, say what to expect.
    """
    found = curve(confidence, loss)
    return {
        "area": bootstrap.interval(area(confidence, loss)),
        "area_by_chance": bootstrap.interval(mean(loss)),
        "least_area": bootstrap.interval(area(-loss, loss)),
        "thresholds": [_threshold(target, found, confidence, loss, bootstrap) for target in targets],
    }


def _threshold(
    target: float, found: Curve, confidence: Floats, loss: Floats, bootstrap: PatientBootstrap
) -> dict[str, Any]:
    kept = np.flatnonzero(found.risk <= target)
    if not len(kept):
        return {"risk_at_most": target, "confidence": None, "coverage": 0.0, "risk": None}
    threshold = float(found.thresholds[kept[-1]])
    accepted = (confidence >= threshold).astype(np.float64)
    terms = np.stack([accepted * loss, accepted], axis=1)
    return {
        "risk_at_most": target,
        "confidence": threshold,
        "coverage": float(found.coverage[kept[-1]]),
        "risk": bootstrap.interval(Measure(terms, ratio, loss)),
    }


def _groups(confidence: Floats) -> tuple[Floats, np.ndarray[Any, Any]]:
    """The distinct confidences from the highest down, and of each study which it has."""
    values, group = np.unique(-confidence, return_inverse=True)
    return -values, group
