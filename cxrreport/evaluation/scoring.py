"""Compute the metrics of several systems.

One metric after the other, so that only one model is in memory, and within it one system after the other, so that
memory hardly grows with their number.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cxrreport.errors import ScoreError, WeightsError
from cxrreport.evaluation import results
from cxrreport.evaluation.inputs import tables
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.statistics import Floats, Measure, PatientBootstrap
from cxrreport.records import Interval
from cxrreport.storage.memory import release_unused_memory


@dataclass(frozen=True, slots=True)
class Scored:
    """The result.

    Args:
        values: system to number to its values by study.
        scores: system to number to score and interval.
        differences: every other system to number to that of the first system minus its own, paired.
        measures: number to measure of the first system; those that are resampled as a whole only with their terms.
        forms: number to the name of its score function, as `results.form_of`.
        numbers: metric to its numbers.
        not_computed: metric to the message about its weights.
        seconds: metric to the time that it took for all systems, with intervals.
    """

    values: dict[str, dict[str, Floats]]
    scores: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Interval]]
    measures: dict[str, Measure] = field(default_factory=dict)
    forms: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, list[str]] = field(default_factory=dict)
    not_computed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def score_systems(metrics: Sequence[Metric], systems: Mapping[str, Pairs], bootstrap: PatientBootstrap) -> Scored:
    """Compute every metric for every system, the first of which is the main one.

    A metric whose weights cannot be used is left out, unless it is the only one.

    Raises:
        ScoreError: two metrics have a number of the same name, or one has an invalid result.
        WeightsError: the weights of all metrics cannot be used.
    """
    _, *others = systems
    scored = Scored(
        values={name: {} for name in systems},
        scores={name: {} for name in systems},
        differences={n: {} for n in others},
    )
    for metric in metrics:
        started = time.perf_counter()
        try:
            _score(metric, systems, bootstrap, scored)
        except WeightsError as error:
            if len(metrics) == 1 + len(scored.not_computed):
                raise
            scored.not_computed[metric.name] = str(error)
        else:
            scored.seconds[metric.name] = time.perf_counter() - started
        finally:
            if metric.release is not None:
                metric.release()
                release_unused_memory()
    return scored


def _score(metric: Metric, systems: Mapping[str, Pairs], bootstrap: PatientBootstrap, scored: Scored) -> None:
    """Add the results of one metric to `scored`.

    Raises:
        ScoreError: as `score_systems`.
        WeightsError: the weights of the metric cannot be used; nothing was added.
    """
    if metric.prepare is not None:
        metric.prepare(list(systems.values()))
    main: dict[str, tuple[float, Floats]] = {}
    for name, pairs in systems.items():
        measures = metric(pairs)
        if taken := measures.keys() & {*scored.values[name], *results.IDENTITY, tables.CONFIDENCE}:
            raise ScoreError(f"metric {metric.name!r}: the name {', '.join(sorted(taken))} is taken; rename it")
        for number, measure in measures.items():
            value, sampled = measure.value, bootstrap.sampled(measure)
            scored.values[name][number] = measure.values
            scored.scores[name][number] = bootstrap.bounds(value, sampled)
            if name in scored.differences:
                ours, ours_sampled = main[number]
                scored.differences[name][number] = bootstrap.bounds(ours - value, ours_sampled - sampled)
            else:
                main[number] = value, sampled
                scored.measures[number] = replace(measure, resampled=None)
                scored.forms[number] = results.form_of(measure)
    scored.numbers[metric.name] = list(main)
