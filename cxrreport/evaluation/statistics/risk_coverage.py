"""Risk-coverage curves: the error rate among the reports that a model is most confident about (selective prediction).

Reports are accepted in order of confidence, the most confident first. Coverage is the share of accepted reports, risk
their mean loss, and the area under the curve is the mean risk over all coverages (El-Yaniv and Wiener 2010; Geifman and
El-Yaniv 2017, arXiv 1705.08500). Reports of equal confidence are accepted together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cxrreport.evaluation.statistics.measures import Floats, Measure, mean, ratio
from cxrreport.evaluation.statistics.resampling import PatientBootstrap


@dataclass(frozen=True, slots=True)
class Curve:
    """A risk-coverage curve, one element per distinct confidence in descending order.

    Args:
        thresholds: lowest confidence that is accepted.
        coverage: share of accepted reports, in (0, 1].
        risk: mean loss of the accepted reports.
    """

    thresholds: Floats
    coverage: Floats
    risk: Floats


def curve(confidence: Floats, loss: Floats) -> Curve:
    """Compute the risk-coverage curve.

    Args:
        confidence: float64[studies], higher for more confident.
        loss: float64[studies], 0 for a correct report.
    """
    thresholds, group = _groups(confidence)
    accepted = np.cumsum(np.bincount(group))
    risk = np.cumsum(np.bincount(group, weights=loss)) / accepted
    return Curve(thresholds, accepted / len(loss), risk)


def area(confidence: Floats, loss: Floats) -> Measure:
    """The area under the curve. It is not a function of sums, so it is recomputed for every resample."""
    order = np.argsort(-confidence, kind="stable")
    _, group = _groups(confidence)
    starts = np.unique(group[order], return_index=True)[1]

    def resampled(weights: Floats) -> Floats:
        sizes = np.add.reduceat(weights[:, order], starts, axis=1)
        losses = np.add.reduceat((weights * loss)[:, order], starts, axis=1)
        accepted = np.cumsum(sizes, axis=1)
        risk = np.divide(np.cumsum(losses, axis=1), accepted, out=np.zeros_like(accepted), where=accepted > 0)
        return np.asarray((sizes * risk).sum(axis=1) / weights.sum(axis=1))

    # Over all studies, the area is the mean of the risks at the confidence of each study.
    risk = curve(confidence, loss).risk[group]
    return Measure(np.stack([risk, np.ones_like(risk)], axis=1), ratio, loss, resampled)


def summary(confidence: Floats, loss: Floats, targets: Sequence[float], bootstrap: PatientBootstrap) -> dict[str, Any]:
    """The area with its interval, beside that of a random and of the best possible order, and a threshold per target.

    The threshold of a target risk has the greatest coverage whose risk does not exceed the target; it is `None` if
    there is none. Thresholds are chosen and measured on the same studies, so expect a risk up to the upper bound on
    others.
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
    within = np.flatnonzero(found.risk <= target)
    if not len(within):
        return {"risk_at_most": target, "confidence": None, "coverage": 0.0, "risk": None}
    threshold = float(found.thresholds[within[-1]])
    accepted = (confidence >= threshold).astype(np.float64)
    terms = np.stack([accepted * loss, accepted], axis=1)
    return {
        "risk_at_most": target,
        "confidence": threshold,
        "coverage": float(found.coverage[within[-1]]),
        "risk": bootstrap.interval(Measure(terms, ratio, loss)),
    }


def _groups(confidence: Floats) -> tuple[Floats, np.ndarray[Any, Any]]:
    """The distinct confidences in descending order, and the index into them for each study."""
    values, group = np.unique(-confidence, return_inverse=True)
    return -values, group
