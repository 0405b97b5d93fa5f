"""The evaluation of one system beside its controls, on the same studies."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrreport import __version__
from cxrreport.errors import ScoreError, SettingsError
from cxrreport.evaluation import results, tables
from cxrreport.evaluation.analyses import analyse
from cxrreport.evaluation.cohort import Cohort, choose_studies
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.radgraph import archives
from cxrreport.evaluation.radgraph.annotator import PACKAGE_CACHE, RadGraphAnnotator
from cxrreport.evaluation.radgraph.graph import NO_ENTITIES
from cxrreport.evaluation.registry import chosen
from cxrreport.evaluation.statistics.bootstrap import CONFIDENCE, Measure, PatientBootstrap
from cxrreport.records import Interval, Progress
from cxrreport.settings import EvaluateSettings, weights_folder
from cxrreport.storage.files import VOLATILE, output_folder, write_json

logger = logging.getLogger(__name__)

MAIN = "model"
"""Name of the system that is evaluated; the others are its controls."""
MOST_FREQUENT = "most_frequent"
SHUFFLED = "shuffled"
"""Control whose images are other patients'; the difference to it is the metric `LOOKS`."""
LOOKS = "looks"
SYNTHETIC = "synthetic: made with models that have only seen phantoms"
UNDECLARED = "not declared"
"""What is said of the inputs of a system whose predictions are a table, where the settings do not say."""

Scores = Mapping[str, Mapping[str, Interval]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was found; the same lies in `output` as files.

    Args:
        systems: system to metric to value and 95% interval; `MAIN` first, and in it the headline first.
        differences: control to metric to `MAIN` less control, paired.
        conditions: what must agree for two of these numbers to be comparable; see `conditions.of_number`.
        counts: studies scored and left out.
        analyses: `findings`, `subgroups` and `selective`; see `analyses.analyse`.
    """

    output: Path
    systems: Scores
    differences: Scores
    conditions: Mapping[str, Any]
    counts: Mapping[str, Any]
    analyses: Mapping[str, Any]


def evaluate(
    settings: EvaluateSettings,
    *,
    progress: Progress | None = None,
    extra_metrics: Sequence[Metric] = (),
) -> Evaluation:
    """Score the predictions and their controls, and write the files of `evaluation.results`.

    Every system is scored on the same studies (`cohort.choose_studies`), and `excluded.parquet` names those that are
    left out, with the reason. An empty prediction counts, with scores of zero.

    Args:
        settings: what to score, and how.
        progress: called with RadGraph's progress over the distinct texts.
        extra_metrics: computed beside those that `settings.metrics` names.

    Raises:
        SettingsError: controls are to be generated first (by `runs.evaluate`); a metric is not known, or sends reports
            to another machine and that is not allowed.
        InputError: a table cannot be used.
        ScoreError: the tables do not belong together, or a name is taken twice.
        WeightsError: weights are missing or not usable.
        OutputError: the output folder is in use or holds something else.
    """
    if taken := {MAIN, MOST_FREQUENT} & settings.controls.keys():
        raise ScoreError(f"controls: the name {', '.join(sorted(taken))} is taken; call the control something else")
    if missing := set(settings.generate_controls) - settings.controls.keys():
        raise SettingsError(f"generate_controls: {', '.join(sorted(missing))} not made yet; call runs.evaluate")
    metrics = chosen(settings, extra_metrics)
    references = tables.read_references(settings.references, settings.section)
    systems = {MAIN: tables.read_predictions(settings.predictions, settings.section)}
    for name, path in settings.controls.items():
        systems[name] = tables.read_predictions(path, settings.section)
    cohort = choose_studies(references, systems, MAIN)
    texts = {name: {study: system.texts[study] or "" for study in cohort.studies} for name, system in systems.items()}
    if settings.most_frequent:
        frequent = tables.most_frequent(references)
        if frequent is None:
            logger.warning("%s: no training split, so there is no control %r", references.source, MOST_FREQUENT)
        else:
            texts[MOST_FREQUENT] = dict.fromkeys(cohort.studies, frequent)
    wanted = {study: references.texts[study] for study in cohort.studies}
    patients = [references.patients[study] for study in cohort.studies]

    record = settings.model_dump(mode="json")
    volatile = VOLATILE | {"annotation_cache", "download"}
    with output_folder(settings.output, verb="evaluate", settings=record, volatile=volatile) as folder:
        annotator = _annotator(settings) if any(metric.graphs for metric in metrics) else None
        pairs = _pairs(wanted, texts, references, systems, annotator, progress)
        measures: dict[str, dict[str, Measure]] = {name: {} for name in pairs}
        numbers: dict[str, list[str]] = {}
        for metric in metrics:
            for name, one in pairs.items():
                found = metric(one)
                if taken := found.keys() & {*measures[name], *results.IDENTITY, tables.CONFIDENCE}:
                    names = ", ".join(sorted(taken))
                    raise ScoreError(f"metric {metric.name!r}: the number {names} is something else's")
                measures[name] |= found
            numbers[metric.name] = list(found)
        bootstrap = PatientBootstrap(patients, samples=settings.bootstrap_samples, seed=settings.seed)
        scores = {
            name: {number: bootstrap.interval(measure) for number, measure in ones.items()}
            for name, ones in measures.items()
        }
        differences = {
            name: {number: bootstrap.difference(measures[MAIN][number], one) for number, one in ones.items()}
            for name, ones in measures.items()
            if name != MAIN
        }
        conditions = _conditions(settings, references, systems, cohort, annotator, metrics, numbers)
        if SHUFFLED in differences:
            headline, scores[MAIN][LOOKS] = next(iter(differences[SHUFFLED].items()))
            conditions["metrics"][LOOKS] = conditions["metrics"][metrics[0].name] | {
                "numbers": [LOOKS],
                "looks": f"{headline} less that of the control {SHUFFLED!r}",
            }
        evaluation = Evaluation(
            output=settings.output,
            systems=scores,
            differences=differences,
            conditions=conditions,
            counts=cohort.counts(references, systems),
            analyses=analyse(
                folder.path,
                settings,
                systems[MAIN],
                pairs,
                measures,
                patients,
                bootstrap,
                note=SYNTHETIC if conditions["synthetic"] else "",
            ),
        )
        results.write_studies(folder.path / "studies.parquet", patients, pairs, measures, systems[MAIN].confidences)
        results.write_terms(folder.path / "terms.parquet", measures[MAIN])
        if annotator is not None:
            results.write_entities(folder.path / "entities.jsonl", pairs[MAIN], lower_case=settings.lower_case)
        results.write_excluded(folder.path / "excluded.parquet", cohort)
        write_json(
            folder.path / "scores.json",
            {
                "conditions": evaluation.conditions,
                "systems": results.plain(evaluation.systems),
                "differences": results.plain(evaluation.differences),
                "counts": evaluation.counts,
                **results.plain(evaluation.analyses),
            },
        )
        folder.finish()
    return evaluation


def _annotator(settings: EvaluateSettings) -> RadGraphAnnotator:
    root = settings.weights or weights_folder() or PACKAGE_CACHE
    folder = archives.locate(settings.radgraph, root, download=settings.download)
    cache = settings.annotation_cache or settings.output.absolute().parent / "annotations.sqlite"
    return RadGraphAnnotator(folder, cache=cache, download=settings.download)


def _pairs(
    wanted: Mapping[str, str],
    written: Mapping[str, Mapping[str, str]],
    references: tables.References,
    systems: Mapping[str, tables.Predictions],
    annotator: RadGraphAnnotator | None,
    progress: Progress | None,
) -> dict[str, Pairs]:
    """Every system beside the references, annotated where there is an annotator."""
    if annotator is None:
        return {name: Pairs(references=wanted, candidates=one) for name, one in written.items()}
    texts = [text for one in (wanted, *written.values()) for text in one.values() if text]
    # An empty candidate scores zero without being annotated as "None", as in the package's F1RadGraph.
    graphs = {"": NO_ENTITIES} | dict(zip(texts, annotator.annotate(texts, progress=progress), strict=True))
    known = {study: graphs[text] for study, text in wanted.items()}
    return {
        name: Pairs(
            references=wanted,
            candidates=one,
            reference_graphs=known,
            candidate_graphs={study: graphs[text] for study, text in one.items()},
            reference_findings=references.findings,
            candidate_findings=systems[name].findings if name in systems else {},
        )
        for name, one in written.items()
    }


def _conditions(
    settings: EvaluateSettings,
    references: tables.References,
    systems: Mapping[str, tables.Predictions],
    cohort: Cohort,
    annotator: RadGraphAnnotator | None,
    metrics: Sequence[Metric],
    numbers: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    graphs: dict[str, Any] = {}
    if annotator is not None:
        graphs = {
            "model": annotator.archive.model_type,
            "weights_sha256": annotator.archive.weights_sha256,
            "archive_sha256": annotator.archive.fingerprint,
            "package": f"radgraph {archives.package_version()}",
            "case": "lower-cased (repository's head)" if settings.lower_case else "as written (radgraph 0.1.18)",
        }
    by_graphs = annotator is not None and annotator.archive.synthetic
    by_predictions = systems[MAIN].synthetic
    return {
        "synthetic": by_predictions or by_graphs or any(metric.synthetic for metric in metrics),
        "section": settings.section,
        "cohort": cohort.digest,
        "splits": sorted({references.splits[study] for study in cohort.studies if study in references.splits}),
        "references": references.digest,
        "predictions": {name: system.sha256 for name, system in systems.items()},
        "inputs": {name: system.inputs or settings.inputs or UNDECLARED for name, system in systems.items()},
        "metrics": {
            metric.name: {
                "numbers": list(numbers[metric.name]),
                "synthetic": by_predictions or metric.synthetic or (metric.graphs and by_graphs),
                **metric.conditions,
                **(graphs if metric.graphs else {}),
            }
            for metric in metrics
        },
        "intervals": {
            "method": "percentile bootstrap over patients (scipy)",
            "confidence": CONFIDENCE,
            "samples": settings.bootstrap_samples,
            "seed": settings.seed,
        },
        "device": annotator.device.type if annotator is not None else "cpu",
        "cxrreport": __version__,
    }
