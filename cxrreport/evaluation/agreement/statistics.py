"""Agreement between readers (kappa), and of every metric with the readers (Kendall's tau-b)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cxrreport.errors import InputError
from cxrreport.evaluation.agreement.ratings import Report, read_ratings
from cxrreport.evaluation.inputs.tables import CONFIDENCE
from cxrreport.evaluation.results import IDENTITY, plain
from cxrreport.evaluation.statistics import Floats, Measure, PatientBootstrap
from cxrreport.records import Interval, Progress
from cxrreport.settings import AgreementSettings
from cxrreport.storage.atomic_files import write_json
from cxrreport.storage.command_files import read_evaluated, read_scores
from cxrreport.storage.output_folder import output_folder

MOST_ERRORS = 10
"""Numbers of errors above it count as this many in kappa."""
LOWER_IS_BETTER = frozenset(
    {
        *("omitted_findings", "hallucinated_findings", "contradictions", "mentions_of_priors", "hallucinated_priors"),
        *("actionable_errors", "urgent_errors", "minor_errors"),
        *("radcliq_v1", "radcliq_v1_radeval", "inverse_radcliq_v1", "inverse_radcliq_v1_radeval"),
    }
)
"""Numbers whose sign is changed for Kendall's tau-b. That of a study is RadCliQ-v1 itself in its inverse too."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The result.

    Args:
        readers: names of the readers.
        counts: rows and those left out by reason, rated reports, and those with scores.
        between_readers: outcome (`ratings.OUTCOMES`) to kappa over all pairs of readers, and by pair; empty for one
            reader.
        metrics: outcome to metric to Kendall's tau-b with the mean over readers, the best first. A positive value means
            that reports that the metric prefers are better for the readers.
        first_numbers: the representative number of every metric, and the confidence.
        synthetic: true if a number depends on weights that this project has trained on phantoms.
    """

    readers: Sequence[str]
    counts: Mapping[str, int]
    between_readers: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Mapping[str, Interval]]
    first_numbers: Sequence[str]
    synthetic: bool


def agreement(settings: AgreementSettings, *, progress: Progress | None = None) -> Agreement:
    """Compare readers with each other and metrics with the readers, and write `readers.json`.

    Patients are resampled with all their reports for the intervals.

    Raises:
        InputError: as `ratings.read_ratings`, the folder is not the output of `evaluate`, or no rated report is in it.
        OutputError: the output folder is in use, or belongs to another command.
    """
    ratings = read_ratings(settings.verdicts, settings.key)
    patients, scores = _read_scores(settings.scores)
    rated = {report for values in ratings.values.values() for report in values}
    unknown = {report for report in rated if report[0] not in patients}
    counts = dict(ratings.counts) | {
        "reports": len(rated),
        "reports_of_unknown_studies": len(unknown),
        "reports_without_scores": len(rated - scores.keys() - unknown),
    }
    if not rated:
        raise InputError(
            f"{settings.verdicts[0]}: no report has a verdict or errors; export the verdicts after reading"
        )
    if not rated & scores.keys():
        ours, theirs = (", ".join(sorted({system for _, system in reports})) for reports in (scores, rated))
        raise InputError(
            f"{settings.scores}: none of the {len(rated)} rated reports is in this evaluation; check the study ids and "
            f"the systems (rated: {theirs}; scored: {ours})"
        )
    between: dict[str, dict[str, Any]] = {}
    metrics: dict[str, dict[str, Interval]] = {}
    for done, (outcome, all_values) in enumerate(ratings.values.items()):
        if progress is not None:
            progress(done, len(ratings.values), "outcomes")
        values = {report: ones for report, ones in all_values.items() if report not in unknown}
        if len(ratings.readers) > 1:
            between[outcome] = _between_readers(values, ratings.readers, patients, settings)
        scored = {report: float(np.mean(list(ones.values()))) for report, ones in values.items() if report in scores}
        metrics[outcome] = _metrics(scored, scores, patients, settings)
    conditions = read_scores(settings.scores)["conditions"]
    first = [*(one["numbers"][0] for one in conditions["metrics"].values()), CONFIDENCE]
    result = Agreement(ratings.readers, counts, between, metrics, first, bool(conditions["synthetic"]))
    with output_folder(settings.output, command="agreement", settings=settings.model_dump(mode="json")) as folder:
        write_json(folder.path / "readers.json", plain(asdict(result)))
        folder.finish()
    return result


def _read_scores(folder: Path) -> tuple[dict[str, str], dict[Report, dict[str, float | None]]]:
    """Study to patient, and report to its scores."""
    ids = ("study_id", "patient_id", "system")
    table = read_evaluated(folder / "studies.parquet", *ids)
    names = [one.name for one in table.schema if one.name not in IDENTITY and pa.types.is_floating(one.type)]
    rows = table.select([*ids, *names]).to_pylist()
    patients = {row["study_id"]: row["patient_id"] for row in rows}
    return patients, {(row["study_id"], row["system"]): {name: row[name] for name in names} for row in rows}


def _between_readers(
    values: Mapping[Report, Mapping[str, float]],
    readers: Sequence[str],
    patients: Mapping[str, str],
    settings: AgreementSettings,
) -> dict[str, Any]:
    reports = [report for report, ones in values.items() if len(ones) > 1]
    if not reports:
        return {"reports": 0}
    clipped = [{reader: min(value, MOST_ERRORS) for reader, value in values[report].items()} for report in reports]
    levels = sorted({value for ones in clipped for value in ones.values()})
    pairs = list(combinations(readers, 2))
    tables = np.zeros((len(reports), len(pairs), len(levels), len(levels)))
    counted = np.zeros((len(reports), len(levels)))
    for row, ones in enumerate(clipped):
        for value in ones.values():
            counted[row, levels.index(value)] += 1
        for place, (one, other) in enumerate(pairs):
            if one in ones and other in ones:
                tables[row, place, levels.index(ones[one]), levels.index(ones[other])] = 1
    bootstrap = _bootstrap(reports, patients, settings)
    apart = np.abs(np.subtract.outer(levels, levels))
    costs = {"kappa": (apart > 0).astype(np.float64), "weighted_kappa": apart.astype(np.float64)}

    def kappas(chosen: Floats) -> dict[str, Interval]:
        terms = chosen.reshape(len(reports), -1)
        return {name: bootstrap.interval(_measure(terms, partial(kappa, cost=cost))) for name, cost in costs.items()}

    found: dict[str, Any] = {"reports": len(reports)} | kappas(tables)
    if len(readers) > 2:
        found["fleiss_kappa"] = bootstrap.interval(_measure(_fleiss_terms(counted), fleiss_kappa))
        found["pairs"] = {
            f"{one} and {other}": {"reports": int(tables[:, place].sum())} | kappas(tables[:, place])
            for place, (one, other) in enumerate(pairs)
        }
    return found


def kappa(sums: Floats, *, cost: Floats) -> Floats:
    """Cohen's kappa, the mean over pairs of readers; NaN if they always use one and the same level.

    Args:
        sums: float64[..., pairs * levels * levels], how often the readers of a pair give two levels.
        cost: float64[levels, levels], the cost of a disagreement: 1, or the difference for (linearly) weighted kappa.
    """
    tables = sums.reshape(*sums.shape[:-1], -1, *cost.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = tables / tables.sum(axis=(-2, -1), keepdims=True)
        by_chance = shares.sum(axis=-1, keepdims=True) * shares.sum(axis=-2, keepdims=True)
        each = 1 - (shares * cost).sum(axis=(-2, -1)) / (by_chance * cost).sum(axis=(-2, -1))
        defined = np.isfinite(each)
        mean: Floats = np.where(defined, each, 0).sum(axis=-1) / defined.sum(axis=-1)
    return mean


def _fleiss_terms(counted: Floats) -> Floats:
    """Terms of `fleiss_kappa` from how many readers give each level, float64[reports, levels]."""
    readers = counted.sum(axis=1)
    agreed = (counted * (counted - 1)).sum(axis=1) / (readers * (readers - 1))
    return np.concatenate([agreed[:, None], np.ones((len(counted), 1)), counted], axis=1)


def fleiss_kappa(sums: Floats) -> Floats:
    """Fleiss' kappa, for numbers of readers that differ between reports; NaN if all readers use one level."""
    with np.errstate(invalid="ignore", divide="ignore"):
        levels = sums[..., 2:] / sums[..., 2:].sum(axis=-1, keepdims=True)
        by_chance = (levels**2).sum(axis=-1)
        found: Floats = (sums[..., 0] / sums[..., 1] - by_chance) / (1 - by_chance)
    return np.where(np.isfinite(found), found, np.nan)


def _metrics(
    rated: Mapping[Report, float],
    scores: Mapping[Report, Mapping[str, float | None]],
    patients: Mapping[str, str],
    settings: AgreementSettings,
) -> dict[str, Interval]:
    found: dict[str, Interval] = {}
    for name in next(iter(scores.values())):
        reports = [report for report in rated if scores[report][name] is not None]
        if len(reports) < 2:
            continue
        sign = -1.0 if name in LOWER_IS_BETTER else 1.0
        ours = sign * np.array([scores[report][name] for report in reports], dtype=np.float64)
        theirs = -np.array([rated[report] for report in reports])
        found[name] = _bootstrap(reports, patients, settings).interval(tau_b(ours, theirs))
    # Undefined ones last.
    return dict(sorted(found.items(), key=lambda one: (math.isnan(one[1].value), -one[1].value)))


def tau_b(one: Floats, other: Floats) -> Measure:
    """Kendall's tau-b of two values per report; NaN if all values of a side are equal."""
    from scipy import stats

    signs = [np.sign(np.subtract.outer(values, values)).astype(np.float32) for values in (one, other)]
    both, *untied = signs[0] * signs[1], *(np.abs(values) for values in signs)

    def resampled(weights: Floats) -> Floats:
        times = weights.astype(np.float32)
        concordant, first, second = (((times @ pairs) * times).sum(axis=1) for pairs in (both, *untied))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(concordant / np.sqrt(first * second), dtype=np.float64)

    value = float(stats.kendalltau(one, other, variant="b").statistic)
    return Measure(np.ones((len(one), 1)), lambda sums: np.full(sums.shape[:-1], value), np.zeros(len(one)), resampled)


def _measure(terms: Floats, score: Any) -> Measure:
    return Measure(terms, score, np.zeros(len(terms)))


def _bootstrap(reports: Sequence[Report], patients: Mapping[str, str], settings: AgreementSettings) -> PatientBootstrap:
    return PatientBootstrap(
        [patients[study] for study, _ in reports], samples=settings.bootstrap_samples, seed=settings.seed
    )
