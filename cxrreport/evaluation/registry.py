"""The built-in metrics, and the choice of those that a run computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

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
from cxrreport.evaluation.statistics import Measure, mean
from cxrreport.settings import EvaluateSettings


def _radgraph(settings: EvaluateSettings) -> Sequence[Metric]:
    """RadGraph F1 with precision and recall, one metric per level, and ReXrank's mean of entity and relation F1."""
    lower_case = settings.lower_case

    def at_level(name: str, level: str, compare: Callable[[Annotation, Annotation], Agreement]) -> Metric:
        def score(pairs: Pairs) -> Mapping[str, Measure]:
            found = [compare(pairs.candidate_graphs[study], graph) for study, graph in pairs.reference_graphs.items()]
            return {
                name: mean([one.f1 for one in found]),
                f"{name}_precision": mean([one.precision for one in found]),
                f"{name}_recall": mean([one.recall for one in found]),
            }

        return Metric(name=name, score=score, conditions={"level": level}, graphs=True)

    return [
        *(
            at_level(f"radgraph_{level}", level.value, partial(agreement, level=level, lower_case=lower_case))
            for level in (Level.PARTIAL, Level.SIMPLE, Level.COMPLETE)
        ),
        at_level(
            "radgraph_rexrank",
            "mean of entity F1 and relation F1 (ReXrank)",
            partial(rexrank, lower_case=lower_case),
        ),
    ]


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
    "chexbert": lambda settings: [chexbert_metric(settings)],
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
