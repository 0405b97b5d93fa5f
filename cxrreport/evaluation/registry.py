"""The metrics that this package brings, and the list of those that a run computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from cxrreport.evaluation.clinical import comparison as clinical
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.metrics import bleu_rouge as text
from cxrreport.evaluation.metrics import interface as metrics
from cxrreport.evaluation.metrics.chexbert import chexbert_metrics
from cxrreport.evaluation.metrics.cider import cider_metrics
from cxrreport.evaluation.radgraph.graph import Agreement, Annotation, Level, agreement, rexrank
from cxrreport.evaluation.statistics.bootstrap import Measure, mean
from cxrreport.settings import EvaluateSettings, weights_folder


def _radgraph(settings: EvaluateSettings) -> Sequence[Metric]:
    """RadGraph F1 with precision and recall, one metric per level, and ReXrank's mean of two F1."""
    lower_case = settings.lower_case

    def made(name: str, level: str, compare: Callable[[Annotation, Annotation], Agreement]) -> Metric:
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
            made(f"radgraph_{level}", level.value, partial(agreement, level=level, lower_case=lower_case))
            for level in (Level.PARTIAL, Level.SIMPLE, Level.COMPLETE)
        ),
        made(
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
    "clinical": lambda _: [clinical.METRIC],
    "bleu": lambda _: text.bleu_metrics(),
    "rouge_l": lambda _: text.rouge_metrics(),
    "cider": lambda _: cider_metrics(),
    "chexbert": _chexbert,
}
"""Name to what makes the metrics of that name."""


def chosen(settings: EvaluateSettings, extra: Sequence[Metric]) -> list[Metric]:
    """The metrics of a run: those that `settings.metrics` names, and `extra`.

    Raises:
        ScoreError: a name is taken twice.
        SettingsError: a metric is not known or cannot be loaded, or sends reports to another machine and that is not
            allowed.
        WeightsError: a metric's weights are missing or not usable.
    """
    found: list[Metric] = []
    for name in settings.metrics:
        found += BUILT_IN[name](settings) if name in BUILT_IN else [metrics.load(name, BUILT_IN)]
    found += extra
    metrics.check(found, allow_remote=settings.allow_remote)
    return found
