"""The evaluation of one system beside its controls, on the same studies."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cxrreport import __version__
from cxrreport.errors import ScoreError
from cxrreport.evaluation import archives, tables
from cxrreport.evaluation.findings import same_studies
from cxrreport.evaluation.graph import NO_AGREEMENT, Agreement, Annotation, Level, agreement, statuses
from cxrreport.evaluation.radgraph import PACKAGE_CACHE, RadGraphAnnotator
from cxrreport.evaluation.statistics import CONFIDENCE, Measure, PatientBootstrap, mean
from cxrreport.evaluation.text import CONVENTIONS, ROUGE, TEXT_METRICS, signature
from cxrreport.files import VOLATILE, atomic_path, output_folder, write_json
from cxrreport.records import Interval, Progress
from cxrreport.remote import check_allowed
from cxrreport.settings import EvaluateSettings

logger = logging.getLogger(__name__)

MAIN = "model"
"""Name of the system that is evaluated; the others are its controls."""
MOST_FREQUENT = "most_frequent"
HEADLINE = "radgraph_partial"

Scorer = Callable[[Mapping[str, str], Mapping[str, str]], Measure | Mapping[str, float]]
"""An extra metric: from references and candidates, both by study id and in the same order, to one value per study
(averaged) or to a `Measure` whose rows are in that order."""
Scores = Mapping[str, Mapping[str, Interval]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was found; the same lies in `output` as files.

    Args:
        systems: system to metric to value and 95% interval, fractions in [0, 1]; `MAIN` first.
        differences: control to metric to `MAIN` less control, paired.
        conditions: what must agree for two of these numbers to be comparable.
        counts: studies scored and left out.
    """

    output: Path
    systems: Scores
    differences: Scores
    conditions: Mapping[str, Any]
    counts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Cohort:
    """The studies that every system is scored on, sorted, and those left out with the system and the reason."""

    studies: Sequence[str]
    left_out: Sequence[tuple[str, str, str]]
    strangers: Mapping[str, int]


def evaluate(
    settings: EvaluateSettings,
    *,
    progress: Progress | None = None,
    extra_metrics: Mapping[str, Scorer] | None = None,
) -> Evaluation:
    """Score the predictions and their controls, and write `scores.json`, `studies.parquet`, `entities.jsonl`.

    Every system is scored on the same studies: those of the splits that the predictions are from, that have a reference
    text and a prediction of every system. An empty prediction counts, with scores of zero; a missing one leaves the
    study out, for every system, and `excluded.parquet` names it.

    Args:
        settings: what to score, and how.
        progress: called with RadGraph's progress over the distinct texts.
        extra_metrics: name to scorer, scored like the others.

    Raises:
        SettingsError: a metric sends reports to another machine (`cxrreport.remote`), and that is not allowed.
        InputError: a table cannot be used.
        ScoreError: the tables do not belong together, or a name is taken twice.
        WeightsError: RadGraph's weights are missing or not usable.
        OutputError: the output folder is in use or holds something else.
    """
    extra = dict(extra_metrics or {})
    for name, scorer in extra.items():
        check_allowed(scorer, f"metric {name}", allow_remote=settings.allow_remote, declared=False)
    references = tables.read_references(settings.references, settings.section)
    systems = {MAIN: tables.read_predictions(settings.predictions, settings.section)}
    for name, path in settings.controls.items():
        systems[name] = tables.read_predictions(path, settings.section)
    frequent = tables.most_frequent(references) if settings.most_frequent else None
    _check_names(settings, extra)
    cohort = _cohort(references, systems)
    candidates = {
        name: {study: system.texts[study] or "" for study in cohort.studies} for name, system in systems.items()
    }
    if frequent is not None:
        candidates[MOST_FREQUENT] = dict.fromkeys(cohort.studies, frequent)
    elif settings.most_frequent:
        logger.warning("%s: no training split, so there is no control %r", references.source, MOST_FREQUENT)
    wanted = {study: references.texts[study] for study in cohort.studies}

    record = settings.model_dump(mode="json")
    volatile = VOLATILE | {"annotation_cache", "download"}
    with output_folder(settings.output, verb="evaluate", settings=record, volatile=volatile) as folder:
        annotator = _annotator(settings)
        texts = [*wanted.values(), *(text for one in candidates.values() for text in one.values())]
        graphs = dict(zip(texts, annotator.annotate(texts, progress=progress), strict=True))
        measures = {
            name: _measures(one, wanted, graphs, extra, lower_case=settings.lower_case)
            for name, one in candidates.items()
        }
        bootstrap = PatientBootstrap(
            [references.patients[study] for study in cohort.studies],
            samples=settings.bootstrap_samples,
            seed=settings.seed,
        )
        evaluation = Evaluation(
            output=settings.output,
            systems={
                name: {metric: bootstrap.interval(measure) for metric, measure in ones.items()}
                for name, ones in measures.items()
            },
            differences={
                name: {metric: bootstrap.difference(measures[MAIN][metric], ones[metric]) for metric in ones}
                for name, ones in measures.items()
                if name != MAIN
            },
            conditions=_conditions(settings, references, systems, cohort, annotator, extra),
            counts=_counts(references, cohort, systems, candidates, bootstrap.patients),
        )
        _write_studies(folder.path / "studies.parquet", references, wanted, candidates, measures)
        _write_entities(folder.path / "entities.jsonl", candidates[MAIN], wanted, graphs, settings.lower_case)
        _write_excluded(folder.path / "excluded.parquet", cohort)
        write_json(
            folder.path / "scores.json",
            {
                "conditions": evaluation.conditions,
                "systems": _plain(evaluation.systems),
                "differences": _plain(evaluation.differences),
                "counts": evaluation.counts,
            },
        )
        folder.finish()
    return evaluation


def _check_names(settings: EvaluateSettings, extra: Mapping[str, Scorer]) -> None:
    taken = {MAIN, MOST_FREQUENT} & settings.controls.keys()
    if taken:
        raise ScoreError(f"controls: the name {', '.join(sorted(taken))} is taken; call the control something else")
    own = {*_radgraph_metrics(), *TEXT_METRICS, "study_id", "patient_id", "system", "candidate", "reference"}
    if taken := own & extra.keys():
        raise ScoreError(f"extra metrics: the name {', '.join(sorted(taken))} is taken; call the metric something else")


def _annotator(settings: EvaluateSettings) -> RadGraphAnnotator:
    folder = archives.locate(settings.radgraph, settings.weights or PACKAGE_CACHE, download=settings.download)
    cache = settings.annotation_cache or settings.output.absolute().parent / "annotations.sqlite"
    return RadGraphAnnotator(folder, cache=cache, download=settings.download)


def _cohort(references: tables.References, systems: Mapping[str, tables.Predictions]) -> _Cohort:
    main = systems[MAIN]
    known = main.texts.keys() & references.texts.keys()
    if not known:
        raise ScoreError(
            f"{main.source} and {references.source} have no study in common (first ids: {min(main.texts)} and "
            f"{min(references.texts)}); both must use the same study ids"
        )
    # Predictions are usually of one split; the others are not missing.
    splits = {references.splits.get(study) for study in known}
    pool = sorted(study for study in references.texts if references.splits.get(study) in splits)
    studies, left_out = [], []
    for study in pool:
        if (problem := _problem(study, references, systems)) is None:
            studies.append(study)
        else:
            left_out.append((study, *problem))
    if not studies:
        reasons = sorted({reason for _, _, reason in left_out})
        raise ScoreError(f"{main.source}: none of {len(pool)} studies can be scored ({', '.join(reasons)})")
    strangers = {name: len(system.texts.keys() - references.texts.keys()) for name, system in systems.items()}
    return _Cohort(studies, left_out, strangers)


def _problem(
    study: str, references: tables.References, systems: Mapping[str, tables.Predictions]
) -> tuple[str, str] | None:
    """Why a study is left out: the system ("reference" for the references) and the reason."""
    if not references.texts[study]:
        return "reference", "empty-reference"
    if tables.too_long(references.texts[study]):
        return "reference", "too-long"
    for name, system in systems.items():
        if study not in system.texts:
            return name, "no-prediction"
        text = system.texts[study]
        if text is None:
            return name, "missing-text"
        if tables.too_long(text):
            return name, "too-long"
    return None


def _radgraph_metrics() -> list[str]:
    return [f"radgraph_{level}{part}" for level in Level for part in ("", "_precision", "_recall")]


def _measures(
    candidates: Mapping[str, str],
    references: Mapping[str, str],
    graphs: Mapping[str, Annotation],
    extra: Mapping[str, Scorer],
    *,
    lower_case: bool,
) -> dict[str, Measure]:
    measures: dict[str, Measure] = {}
    for level in Level:
        found = [_agreement(candidates[study], references[study], graphs, level, lower_case) for study in references]
        measures[f"radgraph_{level}"] = mean([one.f1 for one in found])
        measures[f"radgraph_{level}_precision"] = mean([one.precision for one in found])
        measures[f"radgraph_{level}_recall"] = mean([one.recall for one in found])
    written, wanted = list(candidates.values()), list(references.values())
    for name, metric in TEXT_METRICS.items():
        measures[name] = metric(written, wanted)
    for name, scorer in extra.items():
        measures[name] = _extra(name, scorer(references, candidates), references)
    return measures


def _agreement(
    candidate: str, reference: str, graphs: Mapping[str, Annotation], level: Level, lower_case: bool
) -> Agreement:
    # An empty candidate scores zero without being annotated as "None", as in the package's F1RadGraph.
    if not candidate:
        return NO_AGREEMENT
    return agreement(graphs[candidate], graphs[reference], level, lower_case=lower_case)


def _extra(name: str, result: Measure | Mapping[str, float], references: Mapping[str, str]) -> Measure:
    if isinstance(result, Measure):
        if len(result.values) != len(references):
            raise ScoreError(f"extra metric {name!r}: {len(result.values)} rows for {len(references)} studies")
        return result
    try:
        same_studies(references, result)
    except ScoreError as error:
        raise ScoreError(f"extra metric {name!r}: {error}") from error
    return mean([result[study] for study in references])


def _conditions(
    settings: EvaluateSettings,
    references: tables.References,
    systems: Mapping[str, tables.Predictions],
    cohort: _Cohort,
    annotator: RadGraphAnnotator,
    extra: Mapping[str, Scorer],
) -> dict[str, Any]:
    archive = annotator.archive
    return {
        "synthetic": archive.synthetic,
        "section": settings.section,
        "cohort": hashlib.sha256("\n".join(cohort.studies).encode()).hexdigest(),
        "splits": sorted({references.splits[study] for study in cohort.studies if study in references.splits}),
        "references": references.digest,
        "predictions": {name: system.sha256 for name, system in systems.items()},
        "radgraph": {
            "headline": HEADLINE,
            "levels": [level.value for level in Level],
            "model": archive.model_type,
            "weights_sha256": archive.weights_sha256,
            "archive_sha256": archive.fingerprint,
            "package": archives.package_version(),
            "case": "lower-cased (repository's head)" if settings.lower_case else "as written (radgraph 0.1.18)",
            "device": annotator.device.type,
        },
        **{name: f"corpus, {signature(name)}" for name in CONVENTIONS},
        "rouge_l": ROUGE,
        "extra_metrics": sorted(extra),
        "intervals": {
            "method": "percentile bootstrap over patients",
            "confidence": CONFIDENCE,
            "samples": settings.bootstrap_samples,
            "seed": settings.seed,
        },
        "cxrreport": __version__,
    }


def _counts(
    references: tables.References,
    cohort: _Cohort,
    systems: Mapping[str, tables.Predictions],
    candidates: Mapping[str, Mapping[str, str]],
    patients: int,
) -> dict[str, Any]:
    reasons: dict[str, int] = {}
    for _, system, reason in cohort.left_out:
        key = reason if system == "reference" else f"{reason} ({system})"
        reasons[key] = reasons.get(key, 0) + 1
    return {
        "references": len(references.texts),
        "other_splits": len(references.texts) - len(cohort.studies) - len(cohort.left_out),
        "scored": len(cohort.studies),
        "excluded": len(cohort.left_out),
        "excluded_by_reason": reasons,
        "patients": patients,
        "predictions_without_reference": dict(cohort.strangers),
        "empty_predictions": {name: sum(not text for text in ones.values()) for name, ones in candidates.items()},
        "texts_without_headers": {name: system.without_headers for name, system in systems.items()},
    }


def _plain(scores: Scores) -> dict[str, dict[str, dict[str, float | None]]]:
    def number(value: float) -> float | None:
        return None if math.isnan(value) else value

    return {
        system: {
            metric: {"value": number(one.value), "low": number(one.low), "high": number(one.high)}
            for metric, one in metrics.items()
        }
        for system, metrics in scores.items()
    }


def _write_studies(
    path: Path,
    references: tables.References,
    wanted: Mapping[str, str],
    candidates: Mapping[str, Mapping[str, str]],
    measures: Mapping[str, Mapping[str, Measure]],
) -> None:
    parts = []
    for name, ones in measures.items():
        columns: dict[str, Any] = {
            "study_id": pa.array(wanted.keys(), pa.string()),
            "patient_id": pa.array([references.patients[study] for study in wanted], pa.string()),
            "system": pa.array([name] * len(wanted), pa.string()),
            "candidate": pa.array(candidates[name].values(), pa.string()),
            "reference": pa.array(wanted.values(), pa.string()),
        }
        columns |= {metric: pa.array(one.values, pa.float64(), from_pandas=True) for metric, one in ones.items()}
        parts.append(pa.table(columns))
    with atomic_path(path) as temporary:
        pq.write_table(pa.concat_tables(parts), temporary, compression="zstd")


def _write_entities(
    path: Path,
    candidates: Mapping[str, str],
    references: Mapping[str, str],
    graphs: Mapping[str, Annotation],
    lower_case: bool,
) -> None:
    nothing = Annotation((), ())
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for study, reference in references.items():
            sides = (graphs[candidates[study]] if candidates[study] else nothing, graphs[reference])
            found = statuses(*sides, lower_case=lower_case)
            record: dict[str, Any] = {"study_id": study}
            for side, graph, marks in zip(("candidate", "reference"), sides, found, strict=True):
                record[side] = {
                    "tokens": graph.tokens,
                    "entities": [
                        {"tokens": e.words, "label": e.label, "start": e.start, "end": e.end, "status": mark.value}
                        for e, mark in zip(graph.entities, marks, strict=True)
                    ],
                }
            file.write(json.dumps(record) + "\n")


def _write_excluded(path: Path, cohort: _Cohort) -> None:
    names = ("study_id", "system", "reason")
    columns = {name: pa.array([row[place] for row in cohort.left_out], pa.string()) for place, name in enumerate(names)}
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
