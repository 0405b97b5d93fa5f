"""The built-in metrics, and the choice of those that a run computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from cxrreport.evaluation import clinical, metrics
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.metrics.bleu_rouge import bleu_metrics, rouge_metrics
from cxrreport.evaluation.metrics.chexbert import chexbert_metrics
from cxrreport.evaluation.metrics.cider import cider_metrics
from cxrreport.evaluation.radgraph import Agreement, Annotation, Level, agreement, rexrank
from cxrreport.evaluation.statistics import Measure, mean
from cxrreport.settings import EvaluateSettings, weights_folder


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


def _chexbert(settings: EvaluateSettings) -> Sequence[Metric]:
    root = weights_folder()
    folder = settings.chexbert or (root / "chexbert" if root is not None else None)
    return chexbert_metrics(folder, download=settings.download)


BUILT_IN: Mapping[str, Callable[[EvaluateSettings], Sequence[Metric]]] = {
    "radgraph": _radgraph,
    "clinical": lambda settings: [clinical.METRIC, clinical.severity_metric(settings.error_weights)],
    "bleu": lambda _: bleu_metrics(),
    "rouge_l": lambda _: rouge_metrics(),
    "cider": lambda _: cider_metrics(),
    "chexbert": _chexbert,
}
"""Name in the settings to the factory of its metrics."""


def selected_metrics(settings: EvaluateSettings, extra: Sequence[Metric]) -> list[Metric]:
    """The metrics of a run: those named in `settings.metrics`, and `extra`.

    Raises:
        ScoreError: two metrics have the same name.
        SettingsError: a metric is unknown or cannot be loaded, or sends reports to another machine without permission.
        WeightsError: the weights of a metric are missing or unusable.
    """
    found: list[Metric] = []
    for name in settings.metrics:
        found += BUILT_IN[name](settings) if name in BUILT_IN else [metrics.load(name, BUILT_IN)]
    found += extra
    metrics.check(found, allow_remote=settings.allow_remote)
    return found
