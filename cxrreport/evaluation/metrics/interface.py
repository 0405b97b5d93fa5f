"""What a metric is, and how one is added.

A metric is a function from `Pairs` (what one system wrote beside what should have been written, by study) to numbers,
with the conditions that decide on their values. Ten lines make one:

    from cxrreport.evaluation.metrics import Pairs, metric

    @metric("length_ratio", conditions={"unit": "words of candidate per word of reference, mean over studies"})
    def length_ratio(pairs: Pairs) -> dict[str, float]:
        return {
            study: len(pairs.candidates[study].split()) / len(reference.split())
            for study, reference in pairs.references.items()
        }

    runs.evaluate(settings, extra_metrics=[length_ratio])

or, in the settings of `evaluate`, `my_module:length_ratio` among the `metrics`. A package that declares such an object
under the entry point group `cxrreport.metrics` has it computed where its name, `length_ratio`, is among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from cxrreport.errors import ScoreError, SettingsError
from cxrreport.evaluation.metrics.label_agreement import same_studies
from cxrreport.evaluation.radgraph import Annotation
from cxrreport.evaluation.statistics import Measure, mean
from cxrreport.remote import check_allowed, load_function

GROUP = "cxrreport.metrics"
"""Entry point group by which installed packages plug in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """What one system wrote, and what should have been written: the same studies in the same order.

    Args:
        references: study id to text, never empty.
        candidates: study id to text; empty where the system wrote nothing.
        reference_graphs: study id to RadGraph's annotation; empty unless a metric asks for graphs.
        candidate_graphs: the same of the candidates; an empty text has a graph without entities.
        reference_findings: study id to FINDINGS, where they are the first part of a text that goes on with IMPRESSION.
        candidate_findings: the same of the candidates.
    """

    references: Mapping[str, str]
    candidates: Mapping[str, str]
    reference_graphs: Mapping[str, Annotation] = field(default_factory=dict)
    candidate_graphs: Mapping[str, Annotation] = field(default_factory=dict)
    reference_findings: Mapping[str, str] = field(default_factory=dict)
    candidate_findings: Mapping[str, str] = field(default_factory=dict)


Result = Measure | Mapping[str, float] | Mapping[str, Measure]
"""One value per study (averaged), a `Measure` with one row per study in the order of the pairs, or several measures by
the name of the number, the one that stands for the metric first."""
Scorer = Callable[[Pairs], Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A scorer with what has to be known of its numbers.

    Args:
        name: of the metric, and of its number where it has only one.
        score: from pairs to numbers.
        conditions: JSON values; what must agree for two of these numbers to be comparable, beside what holds for all
            metrics (section, cohort, references) and, where `graphs` is set, RadGraph's model and case rule.
        graphs: it reads RadGraph's annotations.
        remote: it sends the text of reports to another machine; refused unless the user allows that.
        synthetic: it stands on weights that this project has made; its numbers say nothing about real reports.
    """

    name: str
    score: Scorer
    conditions: Mapping[str, Any] = field(default_factory=dict)
    graphs: bool = False
    remote: bool = False
    synthetic: bool = False

    def __call__(self, pairs: Pairs) -> dict[str, Measure]:
        """The metric's numbers by name.

        Raises:
            ScoreError: the scorer left studies out, or made rows for others.
        """
        result = self.score(pairs)
        if isinstance(result, Measure):
            found = {self.name: result}
        elif result and all(isinstance(one, Measure) for one in result.values()):
            found = {name: one for name, one in result.items() if isinstance(one, Measure)}
        else:
            found = {self.name: self._mean(pairs, result)}
        for name, one in found.items():
            if len(one.values) != len(pairs.references):
                raise ScoreError(f"metric {name!r}: {len(one.values)} rows for {len(pairs.references)} studies")
        return found

    def _mean(self, pairs: Pairs, values: Mapping[str, Any]) -> Measure:
        try:
            same_studies(pairs.references, values)
        except ScoreError as error:
            raise ScoreError(f"metric {self.name!r}: {error}") from error
        return mean([float(values[study]) for study in pairs.references])


def metric(
    name: str, *, conditions: Mapping[str, Any] | None = None, graphs: bool = False, remote: bool = False
) -> Callable[[Scorer], Metric]:
    """Make a function a metric; the arguments are those of `Metric`."""

    def made(score: Scorer) -> Metric:
        return Metric(name=name, score=score, conditions=dict(conditions or {}), graphs=graphs, remote=remote)

    return made


def plugged_in() -> dict[str, Any]:
    """The entry points of installed packages, by name; nothing of them is loaded."""
    return {point.name: point for point in entry_points(group=GROUP)}


def load(name: str, known: Iterable[str]) -> Metric:
    """The metric of an installed package, or `module:attribute`.

    Args:
        name: of the entry point, or where the metric is.
        known: what else may be named, for the message.

    Raises:
        SettingsError: there is no such metric, it cannot be imported, or it is none.
    """
    if ":" in name:
        found: Any = load_function(name, "metrics")
    else:
        points = plugged_in()
        if name not in points:
            raise SettingsError(
                f"metrics: {name!r} is not known; known are {', '.join(sorted({*known, *points}))}, and module:metric"
            )
        try:
            found = points[name].load()
        except Exception as error:  # whatever a foreign package does when it is imported
            raise SettingsError(f"metrics: {name!r} of {points[name].value} cannot be loaded ({error!r})") from error
    if not isinstance(found, Metric):
        raise SettingsError(f"metrics: {name!r} is no metric; make it one with cxrreport.evaluation.metrics.metric")
    return found


def check(metrics: Sequence[Metric], *, allow_remote: bool) -> None:
    """Refuse metrics that may not be used together, or not at all.

    Raises:
        ScoreError: a name is taken twice.
        SettingsError: a metric sends reports to another machine, and that is not allowed.
    """
    seen: set[str] = set()
    for one in metrics:
        if one.name in seen:
            raise ScoreError(f"metric {one.name!r}: the name is taken; call the metric something else")
        seen.add(one.name)
        check_allowed(one, f"metric {one.name}", allow_remote=allow_remote)
