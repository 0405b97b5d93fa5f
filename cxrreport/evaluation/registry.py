"""The built-in metrics, and the choice of those that a run computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from cxrreport.errors import WeightsError
from cxrreport.evaluation import clinical, metrics
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.metrics.bertscore import RADEVAL, REXRANK, bertscore_metric
from cxrreport.evaluation.metrics.bleu_rouge import bleu_metrics, rouge_metrics
from cxrreport.evaluation.metrics.chexbert import chexbert_metric
from cxrreport.evaluation.metrics.cider import cider_metrics
from cxrreport.evaluation.metrics.radcliq import radcliq_metric
from cxrreport.evaluation.metrics.ratescore import ratescore_metric
from cxrreport.evaluation.radgraph import Agreement, Annotation, Level, agreement, rexrank
from cxrreport.evaluation.statistics import Floats, Measure, mean
from cxrreport.settings import EvaluateSettings

_SIDES = ("_precision", "_recall")
"""Suffixes of the numbers beside F1."""


def _radgraph(settings: EvaluateSettings) -> Sequence[Metric]:
    """RadGraph F1 with precision and recall, one metric per level, and ReXrank's mean of entity and relation F1."""
    lower_case = settings.lower_case
    levels = (Level.PARTIAL, Level.SIMPLE, Level.COMPLETE)
    compare: dict[str, Callable[[Annotation, Annotation], Agreement]] = {
        f"radgraph_{level}": partial(agreement, level=level, lower_case=lower_case) for level in levels
    }
    compare["radgraph_rexrank"] = partial(rexrank, lower_case=lower_case)
    described = {f"radgraph_{level}": level.value for level in levels}
    described["radgraph_rexrank"] = "mean of entity F1 and relation F1 (ReXrank)"
    # Graphs are unpacked when they are asked for, so all levels are computed in one pass.
    known: WeakKeyDictionary[Pairs, dict[str, Floats]] = WeakKeyDictionary()

    def agreements(pairs: Pairs) -> dict[str, Floats]:
        """Level to F1, precision and recall, float64[studies, 3]."""
        if pairs not in known:
            known[pairs] = found = {name: np.empty((len(pairs.reference_graphs), 3)) for name in compare}
            for row, (study, reference) in enumerate(pairs.reference_graphs.items()):
                candidate = pairs.candidate_graphs[study]
                for name, one in compare.items():
                    agreed = one(candidate, reference)
                    found[name][row] = agreed.f1, agreed.precision, agreed.recall
        return known[pairs]

    def at_level(name: str) -> Metric:
        def score(pairs: Pairs) -> Mapping[str, Measure]:
            columns = agreements(pairs)[name].T
            return {f"{name}{suffix}": mean(one) for suffix, one in zip(("", *_SIDES), columns, strict=True)}

        return Metric(name=name, score=score, conditions={"level": described[name]}, graphs=True)

    return [at_level(name) for name in compare]


def cache_file(settings: EvaluateSettings) -> Path:
    """The SQLite file of annotations and of scores of pairs."""
    return settings.annotation_cache or settings.output.absolute().parent / "annotations.sqlite"


BUILT_IN: Mapping[str, Callable[[EvaluateSettings], Sequence[Metric]]] = {
    "radgraph": _radgraph,
    "clinical": lambda settings: [
        clinical.METRIC,
        clinical.severity_metric(settings.error_weights),
        clinical.READINGS,
        clinical.CHANGES,
    ],
    "bleu": lambda _: bleu_metrics(),
    "rouge_l": lambda _: rouge_metrics(),
    "cider": lambda _: cider_metrics(),
    "chexbert": lambda settings: [chexbert_metric(settings, cache_file(settings))],
    **{
        name: lambda settings, name=name, convention=convention: [  # type: ignore[misc]
            bertscore_metric(name, convention, settings, cache_file(settings))
        ]
        for name, convention in (("bertscore", REXRANK), ("bertscore_radeval", RADEVAL))
    },
    "radcliq": lambda settings: [radcliq_metric(settings, cache_file(settings))],
    "ratescore": lambda settings: [ratescore_metric(settings, cache_file(settings))],
}
"""Name in the settings to the factory of its metrics."""


class Selection(NamedTuple):
    """The metrics of a run, and those whose weights are missing with the message that says what to fetch."""

    metrics: list[Metric]
    missing: dict[str, str]


def selected_metrics(settings: EvaluateSettings, extra: Sequence[Metric]) -> Selection:
    """The metrics of a run: those named in `settings.metrics`, and `extra`.

    Raises:
        ScoreError: two metrics have the same name.
        SettingsError: a metric is unknown or cannot be loaded, or sends reports to another machine without permission.
        WeightsError: the weights of every metric are missing.
    """
    found: list[Metric] = []
    failures: dict[str, WeightsError] = {}
    for name in settings.metrics:
        try:
            found += BUILT_IN[name](settings) if name in BUILT_IN else [metrics.load(name, BUILT_IN)]
        except WeightsError as error:
            failures[name] = error
    found += extra
    if not found and failures:
        raise next(iter(failures.values()))
    metrics.check(found, allow_remote=settings.allow_remote)
    return Selection(found, {name: str(error) for name, error in failures.items()})
