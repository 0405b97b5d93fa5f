"""Compute the metrics of several systems, one metric at a time, so that only one model is in memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cxrreport.errors import ScoreError, WeightsError
from cxrreport.evaluation import results
from cxrreport.evaluation.inputs import tables
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.statistics import Measure


@dataclass(frozen=True, slots=True)
class Scored:
    """The result.

    Args:
        measures: system to number to measure.
        numbers: metric to its numbers.
        not_computed: metric to the message about its weights.
        seconds: metric to the time that it took for all systems.
    """

    measures: dict[str, dict[str, Measure]]
    numbers: dict[str, list[str]] = field(default_factory=dict)
    not_computed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def score_systems(metrics: Sequence[Metric], systems: Mapping[str, Pairs]) -> Scored:
    """Compute every metric for every system.

    A metric whose weights cannot be used is left out, unless it is the only one.

    Raises:
        ScoreError: two metrics have a number of the same name, or one has an invalid result.
        WeightsError: the weights of all metrics cannot be used.
    """
    scored = Scored({name: {} for name in systems})
    for metric in metrics:
        started = time.perf_counter()
        try:
            if metric.prepare is not None:
                metric.prepare(list(systems.values()))
            found = {name: metric(pairs) for name, pairs in systems.items()}
        except WeightsError as error:
            if len(metrics) == 1 + len(scored.not_computed):
                raise
            scored.not_computed[metric.name] = str(error)
            continue
        for name, ones in found.items():
            if taken := ones.keys() & {*scored.measures[name], *results.IDENTITY, tables.CONFIDENCE}:
                raise ScoreError(f"metric {metric.name!r}: the name {', '.join(sorted(taken))} is taken; rename it")
            scored.measures[name] |= ones
        scored.numbers[metric.name] = list(next(iter(found.values())))
        scored.seconds[metric.name] = time.perf_counter() - started
    return scored
