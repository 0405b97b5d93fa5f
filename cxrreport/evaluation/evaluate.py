"""Evaluate one system beside its baselines on the same studies."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxrreport import __version__
from cxrreport.errors import ScoreError, SettingsError, WeightsError
from cxrreport.evaluation import clinical, results
from cxrreport.evaluation.analyses import analyse
from cxrreport.evaluation.conditions import prior_studies
from cxrreport.evaluation.inputs import tables
from cxrreport.evaluation.inputs.cohort import RULE, Cohort, choose_studies, scored_texts
from cxrreport.evaluation.metrics import Metric, Pairs
from cxrreport.evaluation.radgraph import PackedAnnotations, StudyAnnotations, archives
from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator
from cxrreport.evaluation.registry import cache_file, selected_metrics
from cxrreport.evaluation.scoring import score_systems
from cxrreport.evaluation.statistics import CONFIDENCE, PatientBootstrap
from cxrreport.records import Interval, Progress
from cxrreport.settings import EvaluateSettings
from cxrreport.storage.atomic_files import write_json
from cxrreport.storage.memory import release_unused_memory
from cxrreport.storage.output_folder import VOLATILE, output_folder

logger = logging.getLogger(__name__)

MAIN = "model"
"""Name of the evaluated system; the others are its baselines."""
MOST_FREQUENT = "most_frequent"
SHUFFLED = "shuffled"
"""Baseline with the images of other patients."""
IMAGE_RELIANCE_GAP = "image_reliance_gap"
"""Headline score of `MAIN` minus that of `SHUFFLED`."""
SYNTHETIC = "synthetic: made with models trained on phantoms only"
UNDECLARED = "not declared"
"""Inputs of a system whose predictions are a table, if the settings do not state them."""

Scores = Mapping[str, Mapping[str, Interval]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The results, which `output` holds as files.

    Args:
        systems: system to metric to value and 95% interval; `MAIN` first, and in it the headline first.
        differences: baseline to metric to `MAIN` minus baseline, paired.
        conditions: conditions that must agree for two numbers to be comparable; see `conditions.of_number`.
        counts: numbers of scored and excluded studies.
        analyses: `findings`, `subgroups` and `selective`; see `analyses.analyse`.
        not_computed: metric to what its computation lacks.
        seconds: metric to the time that it took for all systems, with intervals; RadGraph's is that of the annotation.
    """

    output: Path
    systems: Scores
    differences: Scores
    conditions: Mapping[str, Any]
    counts: Mapping[str, Any]
    analyses: Mapping[str, Any]
    not_computed: Mapping[str, str]
    seconds: Mapping[str, float] = field(compare=False)


def evaluate(
    settings: EvaluateSettings,
    *,
    progress: Progress | None = None,
    extra_metrics: Sequence[Metric] = (),
) -> Evaluation:
    """Score the predictions and their baselines, and write the files of `evaluation.results`.

    Every system is scored on the same studies, which depend on the references only (`cohort.choose_studies`). A missing
    prediction is scored like an empty one, and one that is too long is cut (`cohort.RULE`). `excluded.parquet` lists
    them, and the excluded studies, with the reason.

    Args:
        settings: predictions, references, baselines and metrics.
        progress: called with the number of annotated distinct texts.
        extra_metrics: metrics in addition to those named in `settings.metrics`.

    Raises:
        SettingsError: baselines have to be generated first (by `runs.evaluate`), or a metric is unknown or sends
            reports to another machine without permission.
        InputError: a table is missing or invalid.
        ScoreError: the tables have no study in common or another number than expected, or a name is used twice.
        WeightsError: weights are missing or unusable.
        OutputError: the output folder is in use, or belongs to another command.
    """
    if taken := {MAIN, MOST_FREQUENT} & settings.baselines.keys():
        raise ScoreError(f"baselines: the name {', '.join(sorted(taken))} is reserved; rename the baseline")
    if missing := set(settings.generate_baselines) - settings.baselines.keys():
        raise SettingsError(f"generate_baselines: {', '.join(sorted(missing))} not generated yet; call runs.evaluate")
    metrics, missing_weights = selected_metrics(settings, extra_metrics)
    references = tables.read_references(settings.references, settings.section)
    systems = {MAIN: tables.read_predictions(settings.predictions, settings.section)}
    for name, path in settings.baselines.items():
        systems[name] = tables.read_predictions(path, settings.section)
    shown = {study for study, prior in (systems[MAIN].priors or {}).items() if prior}
    references, with_mentions = references.keeping_mentions(shown)
    cohort = choose_studies(references, systems, MAIN)
    if settings.expected_studies not in (None, len(cohort.studies)):
        raise ScoreError(
            f"{references.source}: {len(cohort.studies)} studies are scored, and expected_studies is "
            f"{settings.expected_studies}; use the references of that cohort, or set it to null"
        )
    texts, findings = {}, {}
    for name, system in systems.items():
        texts[name], findings[name] = scored_texts(system, cohort.studies)
    if settings.most_frequent:
        frequent = tables.most_frequent(references)
        if frequent is None:
            logger.warning("%s: no training split; baseline %r is not computed", references.source, MOST_FREQUENT)
        else:
            texts[MOST_FREQUENT] = dict.fromkeys(cohort.studies, tables.cut(frequent))
    reference_texts = {study: references.texts[study] for study in cohort.studies}
    patients = [references.patients[study] for study in cohort.studies]

    record = settings.model_dump(mode="json")
    volatile = VOLATILE | {"annotation_cache", "download"}
    with output_folder(settings.output, command="evaluate", settings=record, volatile=volatile) as folder:
        started = time.perf_counter()
        annotator, without_graphs = _annotator(settings, metrics)
        if without_graphs:  # changes last, because few reports state one: the first number is the headline
            metrics = sorted((one for one in metrics if not one.graphs), key=lambda one: one is clinical.CHANGES)
        priors = {name: systems[name].priors if name in systems else {} for name in texts}
        pairs = _pairs(reference_texts, texts, references.findings, findings, priors, annotator, progress)
        archive, device = (annotator.archive, annotator.device.type) if annotator is not None else (None, "cpu")
        del annotator  # other models are loaded next
        annotation = {"RadGraph": time.perf_counter() - started} if archive is not None else {}
        release_unused_memory()
        bootstrap = PatientBootstrap(patients, samples=settings.bootstrap_samples, seed=settings.seed)
        scored = score_systems(metrics, pairs, bootstrap)
        scores, differences = scored.scores, scored.differences
        not_computed = missing_weights | without_graphs | scored.not_computed
        metrics = [metric for metric in metrics if metric.name in scored.numbers]
        conditions = _conditions(settings, references, systems, cohort, archive, device, metrics, scored.numbers)
        conditions |= prior_studies(priors, cohort.studies, with_mentions)
        if priors[MAIN] is None and clinical.HALLUCINATED_CHANGE in scores[MAIN]:
            not_computed[clinical.HALLUCINATED_CHANGE] = (
                f"{systems[MAIN].source} has no column {tables.PRIOR}, so it is not known whether a prior was shown"
            )
        if SHUFFLED in differences:
            headline, scores[MAIN][IMAGE_RELIANCE_GAP] = next(iter(differences[SHUFFLED].items()))
            conditions["metrics"][IMAGE_RELIANCE_GAP] = conditions["metrics"][metrics[0].name] | {
                "numbers": [IMAGE_RELIANCE_GAP],
                "difference": f"{headline} of the model minus that of {SHUFFLED!r}",
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
                scored,
                patients,
                bootstrap,
                note=SYNTHETIC if conditions["synthetic"] else "",
            ),
            not_computed=not_computed,
            seconds={name: round(one, 3) for name, one in (annotation | scored.seconds).items()},
        )
        results.write_studies(
            folder.path / "studies.parquet", patients, pairs, scored.values, systems[MAIN].confidences
        )
        results.write_terms(folder.path / "terms.parquet", scored.measures, scored.forms)
        if archive is not None:
            results.write_entities(folder.path / "entities.jsonl", pairs[MAIN], lower_case=settings.lower_case)
        results.write_excluded(folder.path / "excluded.parquet", cohort)
        analyses = results.plain(evaluation.analyses)
        # Text of reports has a file of its own, so that scores can be shown to anyone.
        described = {"references": analyses["diversity"]["references"], **analyses["diversity"]["systems"]}
        write_json(folder.path / "sentences.json", {name: one.pop("sentences") for name, one in described.items()})
        write_json(
            folder.path / "scores.json",
            {
                "conditions": evaluation.conditions,
                "systems": results.plain(evaluation.systems),
                "differences": results.plain(evaluation.differences),
                "counts": evaluation.counts,
                "not_computed": evaluation.not_computed,
                **analyses,
            },
        )
        folder.finish()
    return evaluation


def _annotator(
    settings: EvaluateSettings, metrics: Sequence[Metric]
) -> tuple[RadGraphAnnotator | None, dict[str, str]]:
    """What annotates texts, if a metric needs it; and those that cannot be computed without its weights, with why.

    Raises:
        WeightsError: the weights cannot be used, and every metric needs them.
    """
    needing = [metric.name for metric in metrics if metric.graphs]
    if not needing:
        return None, {}
    cache = cache_file(settings)
    try:
        found = RadGraphAnnotator.find(settings.radgraph, settings.weights, cache=cache, download=settings.download)
    except WeightsError as error:
        if len(needing) == len(metrics):
            raise
        return None, dict.fromkeys(needing, str(error))
    return found, {}


def _pairs(
    reference_texts: Mapping[str, str],
    candidate_texts: Mapping[str, Mapping[str, str]],
    reference_findings: Mapping[str, str],
    candidate_findings: Mapping[str, Mapping[str, str]],
    priors: Mapping[str, Mapping[str, str] | None],
    annotator: RadGraphAnnotator | None,
    progress: Progress | None,
) -> dict[str, Pairs]:
    """Candidates and references of every system, annotated if there is an annotator."""
    if annotator is None:
        return {
            name: Pairs(references=reference_texts, candidates=one, candidate_priors=priors[name])
            for name, one in candidate_texts.items()
        }
    # As in the package's F1RadGraph, an empty candidate scores zero and is not annotated as "None".
    texts = [text for one in (reference_texts, *candidate_texts.values()) for text in one.values() if text]
    graphs = PackedAnnotations()
    for text, annotation in annotator.annotations(texts, progress=progress):
        graphs.add(text, annotation)
    reference_graphs = StudyAnnotations(reference_texts, graphs)
    return {
        name: Pairs(
            references=reference_texts,
            candidates=one,
            reference_graphs=reference_graphs,
            candidate_graphs=StudyAnnotations(one, graphs),
            reference_findings=reference_findings,
            candidate_findings=candidate_findings.get(name, {}),
            candidate_priors=priors[name],
        )
        for name, one in candidate_texts.items()
    }


def _conditions(
    settings: EvaluateSettings,
    references: tables.References,
    systems: Mapping[str, tables.Predictions],
    cohort: Cohort,
    archive: archives.Archive | None,
    device: str,
    metrics: Sequence[Metric],
    numbers: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    graphs: dict[str, Any] = {}
    if archive is not None:
        graphs = {
            "model": archive.model_type,
            "weights_sha256": archive.weights_sha256,
            "archive_sha256": archive.fingerprint,
            "package": f"radgraph {archives.package_version()}",
            "case": "lower-cased (repository's head)" if settings.lower_case else "as written (radgraph 0.1.18)",
        }
    by_graphs = archive is not None and archive.synthetic
    by_predictions = systems[MAIN].synthetic
    return {
        "synthetic": by_predictions or by_graphs or any(metric.synthetic for metric in metrics),
        "section": settings.section,
        "cohort": cohort.digest,
        "candidates": RULE,
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
        "device": device,
        "cxrreport": __version__,
    }
