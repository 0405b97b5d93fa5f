"""What an evaluation says beside its scores: by finding, by subgroup, by the model's confidence, and as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxrreport.evaluation import plots, subgroups
from cxrreport.evaluation.clinical import comparison as clinical
from cxrreport.evaluation.clinical.comparison import Compared
from cxrreport.evaluation.clinical.vocabulary import Finding
from cxrreport.evaluation.metrics import Pairs
from cxrreport.evaluation.statistics import risk_coverage as selective
from cxrreport.evaluation.statistics.bootstrap import Measure, PatientBootstrap
from cxrreport.evaluation.tables import MANIFEST, Predictions
from cxrreport.settings import EvaluateSettings

ANY_ERROR = "any omitted or invented finding"
_NORMAL = {True: "normal", False: "abnormal"}


def analyse(
    folder: Path,
    settings: EvaluateSettings,
    predictions: Predictions,
    pairs: Mapping[str, Pairs],
    measures: Mapping[str, Mapping[str, Measure]],
    patients: Sequence[str],
    bootstrap: PatientBootstrap,
    *,
    note: str,
) -> dict[str, Any]:
    """Write `findings.parquet` and the pictures, and return what `scores.json` holds under `findings`, `subgroups` and
    `selective`; what cannot be said (no graphs, no confidence) is left out.

    Args:
        folder: where the files go.
        settings: of the evaluation.
        predictions: of the main system, which is the first of `pairs` and of `measures`.
        pairs: of every system.
        measures: system to number to measure.
        patients: of each study.
        bootstrap: over these patients.
        note: stands on every picture.
    """
    main = next(iter(pairs))
    studies = list(pairs[main].references)
    headline, first = next(iter(measures[main].items()))
    found: dict[str, Any] = {}
    losses: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
    groups: dict[str, list[str]] = {}
    shown = [headline]
    if _is_fraction(first):
        values = {name: (ones[headline].values, bootstrap.interval(ones[headline])) for name, ones in measures.items()}
        plots.scores(folder / "scores.png", headline, values, note)
        losses[f"1 - {headline}"] = 1 - first.values
    if settings.references.is_dir():
        groups |= subgroups.read_groups(settings.references / MANIFEST, studies)
    if pairs[main].reference_graphs:
        compared = {name: clinical.compare(one) for name, one in pairs.items()}
        clinical.write(folder / "findings.parquet", compared)
        found["findings"] = {name: clinical.by_finding(one, bootstrap) for name, one in compared.items()}
        plots.findings(folder / "findings.png", found["findings"][main], note)
        wrong = [compared[main].counts(finding, clinical.there)[:, 1:].any(axis=1) for finding in clinical.SCORED]
        losses[ANY_ERROR] = np.any(wrong, axis=0).astype(np.float64)
        groups["reference"] = _reference_groups(compared[main])
        shown += [name for name in ("findings_f1", "omitted_findings", "invented_findings") if name in measures[main]]
    found["subgroups"] = subgroups.by_group(
        groups,
        {name: measures[main][name] for name in shown},
        patients,
        samples=settings.bootstrap_samples,
        seed=settings.seed,
    )
    if losses and predictions.confidences:
        found["selective"] = _selective(folder, settings, predictions, studies, patients, losses, note)
    return found


def _selective(
    folder: Path,
    settings: EvaluateSettings,
    predictions: Predictions,
    studies: Sequence[str],
    patients: Sequence[str],
    losses: Mapping[str, np.ndarray[Any, np.dtype[np.float64]]],
    note: str,
) -> dict[str, Any]:
    rows = [row for row, study in enumerate(studies) if study in predictions.confidences]
    if not rows:
        return {"studies": 0, "without_confidence": len(studies)}
    confidence = np.array([predictions.confidences[studies[row]] for row in rows])
    bootstrap = PatientBootstrap(
        [patients[row] for row in rows], samples=settings.bootstrap_samples, seed=settings.seed
    )
    risks = {
        name: selective.summary(confidence, loss[rows], settings.risks, bootstrap) for name, loss in losses.items()
    }
    curves = {name: (selective.curve(confidence, loss[rows]), risks[name]["area"]) for name, loss in losses.items()}
    plots.selective(folder / "selective.png", curves, note)
    return {
        "confidence": "mean natural-log probability of the generated tokens",
        "studies": len(rows),
        "without_confidence": len(studies) - len(rows),
        "risks": risks,
    }


def _reference_groups(compared: Compared) -> list[str]:
    """Normal or abnormal by the reference's own statement; a reference that says nothing of any finding is neither."""
    said = [one.stated.get(Finding.NO_FINDING) for one in compared.reference]
    return [subgroups.NOT_KNOWN if one is None else _NORMAL[clinical.there(one)] for one in said]


def _is_fraction(measure: Measure) -> bool:
    return bool(len(measure.values)) and bool(((measure.values >= 0) & (measure.values <= 1)).all())
