"""Analyses beside the scores: by finding, by subgroup and by the model's confidence, with plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxrreport.evaluation import clinical, plots, subgroups
from cxrreport.evaluation.clinical import Compared, Finding, ReadReports
from cxrreport.evaluation.inputs.tables import MANIFEST, Predictions
from cxrreport.evaluation.metrics import Pairs
from cxrreport.evaluation.metrics.diversity import diversity
from cxrreport.evaluation.scoring import Scored
from cxrreport.evaluation.statistics import Floats, Measure, PatientBootstrap, risk_coverage
from cxrreport.settings import EvaluateSettings

ANY_ERROR = "any omitted or hallucinated finding"
_NORMAL = {True: "normal", False: "abnormal"}


def analyse(
    folder: Path,
    settings: EvaluateSettings,
    predictions: Predictions,
    pairs: Mapping[str, Pairs],
    scored: Scored,
    patients: Sequence[str],
    bootstrap: PatientBootstrap,
    *,
    note: str,
) -> dict[str, Any]:
    """Write `findings.parquet` and the plots.

    Args:
        folder: output folder.
        settings: settings of the evaluation.
        predictions: predictions of the main system, which is the first of `pairs`.
        pairs: candidates and references of every system.
        scored: the scores of these systems.
        patients: patient of each study.
        bootstrap: bootstrap over these patients.
        note: line under the title of every plot.

    Returns:
        `diversity`, `changes`, `findings`, `subgroups`, `selective` and `selective_by_agreement` of `scores.json`.
        Parts that need graphs or confidences are absent if there are none.
    """
    main = next(iter(pairs))
    studies = list(pairs[main].references)
    measures = scored.measures
    headline, first = next(iter(measures.items()))
    analyses: dict[str, Any] = {}
    losses: dict[str, Floats] = {}
    groups: dict[str, list[str]] = {}
    by_group = [headline]
    if _is_fraction(first):
        values = {name: (scored.values[name][headline], scored.scores[name][headline]) for name in pairs}
        plots.scores(folder / "scores.png", headline, values, note)
        losses[f"1 - {headline}"] = 1 - first.values
    if settings.references.is_dir():
        groups |= subgroups.read_groups(settings.references / MANIFEST, studies)
    if "change_f1" in measures:
        analyses["changes"] = {name: clinical.changes_by_group(one, bootstrap) for name, one in pairs.items()}
    positive: dict[str, Iterator[set[int]]] = {}
    references: Iterator[set[int]] = iter(())
    if pairs[main].reference_graphs:
        compared = {name: clinical.compare(one) for name, one in pairs.items()}
        positive = {name: _positive(one.candidate) for name, one in compared.items()}
        references = _positive(compared[main].reference)
        clinical.write_findings(folder / "findings.parquet", compared)
        analyses["findings"] = {name: clinical.by_finding(one, bootstrap) for name, one in compared.items()}
        plots.findings(folder / "findings.png", analyses["findings"][main], note)
        errors = compared[main].counts("positive")[:, clinical.SCORED_PLACES, 1:]
        losses[ANY_ERROR] = np.asarray(errors.any(axis=(1, 2)), np.float64)
        groups["reference"] = _reference_groups(compared[main])
        by_group += [
            name
            for name in ("findings_f1", "omitted_findings", "hallucinated_findings", "actionable_errors")
            if name in measures
        ]
    analyses["diversity"] = {
        "references": diversity(pairs[main].references.values(), references),
        "systems": {name: diversity(one.candidates.values(), positive.get(name, ())) for name, one in pairs.items()},
    }
    analyses["subgroups"] = subgroups.by_group(
        groups,
        {name: measures[name] for name in by_group},
        patients,
        samples=settings.bootstrap_samples,
        seed=settings.seed,
    )
    for name, (confidences, kind) in {
        "selective": (predictions.confidences, "mean natural-log probability of the generated tokens"),
        "selective_by_agreement": (predictions.agreements, "mean agreement with the other samples of the study"),
    }.items():
        if losses and confidences:
            picture = folder / f"{name}.png"
            found = _selective_prediction(picture, settings, confidences, kind, studies, patients, losses, note)
            analyses[name] = {"confidence": kind, **found}
    return analyses


def _positive(reports: ReadReports) -> Iterator[set[int]]:
    """The positive findings of each report, as places in `SCORED`."""
    for row in reports.stated.positive[:, clinical.SCORED_PLACES]:
        yield set(np.flatnonzero(row).tolist())


def _selective_prediction(
    picture: Path,
    settings: EvaluateSettings,
    confidences: Mapping[str, float],
    kind: str,
    studies: Sequence[str],
    patients: Sequence[str],
    losses: Mapping[str, Floats],
    note: str,
) -> dict[str, Any]:
    rows = [row for row, study in enumerate(studies) if study in confidences]
    if not rows:
        return {"studies": 0, "without_confidence": len(studies)}
    confidence = np.array([confidences[studies[row]] for row in rows])
    bootstrap = PatientBootstrap(
        [patients[row] for row in rows], samples=settings.bootstrap_samples, seed=settings.seed
    )
    risks = {
        name: risk_coverage.summary(confidence, loss[rows], settings.risks, bootstrap) for name, loss in losses.items()
    }
    curves = {name: (risk_coverage.curve(confidence, loss[rows]), risks[name]["area"]) for name, loss in losses.items()}
    plots.risk_coverage(picture, curves, kind, note)
    return {
        "studies": len(rows),
        "without_confidence": len(studies) - len(rows),
        "risks": risks,
    }


def _reference_groups(compared: Compared) -> list[str]:
    """Normal or abnormal as the reference states it, unknown for a reference that states no finding."""
    stated, place = compared.reference.stated, list(Finding).index(Finding.NO_FINDING)
    columns = zip(stated.presence[:, place].tolist(), stated.positive[:, place].tolist(), strict=True)
    return [_NORMAL[normal] if known else subgroups.UNKNOWN for known, normal in columns]


def _is_fraction(measure: Measure) -> bool:
    return bool(len(measure.values)) and bool(((measure.values >= 0) & (measure.values <= 1)).all())
