"""The interface of metrics, and how to add one.

A metric is a function from `Pairs` (candidates and references by study) to numbers, with the conditions that determine
their values:

    from cxrreport.evaluation.metrics import Pairs, metric

    @metric("length_ratio", conditions={"unit": "words of candidate per word of reference, mean over studies"})
    def length_ratio(pairs: Pairs) -> dict[str, float]:
        return {
            study: len(pairs.candidates[study].split()) / len(reference.split())
            for study, reference in pairs.references.items()
        }

    runs.evaluate(settings, extra_metrics=[length_ratio])

or, in the settings of `evaluate`, `my_module:length_ratio` in `metrics`. A package can declare a metric under the entry
point group `cxrreport.metrics`; `metrics` then refers to it by its name, `length_ratio`.
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
from cxrreport.user_functions import check_allowed, load_function

GROUP = "cxrreport.metrics"
"""Entry point group of metrics in installed packages."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Pairs:
    """Candidates of one system and references, for the same studies in the same order.

    Pairs are compared by identity, so that what is read of them can be kept while they are in use.

    Args:
        references: study id to text, never empty.
        candidates: study id to text, empty if the system wrote nothing.
        reference_graphs: study id to RadGraph annotation; empty unless a metric needs graphs.
        candidate_graphs: the same for the candidates; the graph of an empty text has no entities.
        reference_findings: study id to FINDINGS, if the text consists of FINDINGS and IMPRESSION.
        candidate_findings: the same for the candidates.
        candidate_priors: study id to the id of the prior study that the system was shown, empty if none; `None` if it
            is not known what was shown.
    """

    references: Mapping[str, str]
    candidates: Mapping[str, str]
    reference_graphs: Mapping[str, Annotation] = field(default_factory=dict)
    candidate_graphs: Mapping[str, Annotation] = field(default_factory=dict)
    reference_findings: Mapping[str, str] = field(default_factory=dict)
    candidate_findings: Mapping[str, str] = field(default_factory=dict)
    candidate_priors: Mapping[str, str] | None = None


Result = Measure | Mapping[str, float] | Mapping[str, Measure]
"""One value per study, which are averaged; a `Measure` with one row per study in the order of the pairs; or several
measures by the name of the number, the representative one first."""
Scorer = Callable[[Pairs], Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A scorer with a description of its numbers.

    Args:
        name: name of the metric, and of its number if it has only one.
        score: function from pairs to numbers.
        conditions: JSON values that must agree for two of these numbers to be comparable, in addition to those of all
            metrics (section, cohort, references) and, if `graphs` is set, RadGraph's model and case rule.
        graphs: true if it needs RadGraph annotations.
        remote: true if it sends report text to another machine, which the user must allow.
        synthetic: true if it uses weights that this project has trained on phantoms.
        prepare: called once with the pairs of all systems before any is scored, so that a model computes what they
            have in common once and is in memory only meanwhile; `None` if there is nothing to prepare.
        release: called after the last system, to forget what was prepared; `None` if there is nothing to forget.
    """

    name: str
    score: Scorer
    conditions: Mapping[str, Any] = field(default_factory=dict)
    graphs: bool = False
    remote: bool = False
    synthetic: bool = False
    prepare: Callable[[Sequence[Pairs]], None] | None = None
    release: Callable[[], None] | None = None

    def __call__(self, pairs: Pairs) -> dict[str, Measure]:
        """Compute the numbers of the metric by name.

        Raises:
            ScoreError: the scorer omitted studies, or returned values for others.
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
    """Convert a function into a metric; see `Metric` for the arguments."""
    return lambda score: Metric(name=name, score=score, conditions=dict(conditions or {}), graphs=graphs, remote=remote)


def plugged_in() -> dict[str, Any]:
    """The metrics of installed packages by name, as entry points that are not loaded."""
    return {point.name: point for point in entry_points(group=GROUP)}


def load(name: str, known: Iterable[str]) -> Metric:
    """Load a metric of an installed package, or `module:attribute`.

    Args:
        name: name of the entry point, or `module:attribute`.
        known: names of the other metrics, for the error message.

    Raises:
        SettingsError: the metric does not exist, cannot be imported or is not a `Metric`.
    """
    if ":" in name:
        found: Any = load_function(name, "metrics")
    else:
        points = plugged_in()
        if name not in points:
            raise SettingsError(
                f"metrics: {name!r} is unknown; use one of {', '.join(sorted({*known, *points}))}, or module:metric"
            )
        try:
            found = points[name].load()
        except Exception as error:  # importing another package can raise anything
            raise SettingsError(f"metrics: {name!r} of {points[name].value} cannot be loaded ({error!r})") from error
    if not isinstance(found, Metric):
        raise SettingsError(f"metrics: {name!r} is not a metric; define it with cxrreport.evaluation.metrics.metric")
    return found


def check(metrics: Sequence[Metric], *, allow_remote: bool) -> None:
    """Check that metrics can be used together and are allowed.

    Raises:
        ScoreError: two metrics have the same name.
        SettingsError: a metric sends reports to another machine, which is not allowed.
    """
    seen: set[str] = set()
    for one in metrics:
        if one.name in seen:
            raise ScoreError(f"metric {one.name!r}: the name is taken; rename the metric")
        seen.add(one.name)
        check_allowed(one, f"metric {one.name}", allow_remote=allow_remote)
