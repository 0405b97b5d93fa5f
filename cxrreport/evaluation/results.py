"""The tables of an evaluation: studies, terms, entities and exclusions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cxrreport.evaluation.inputs.cohort import TOO_LONG, Cohort
from cxrreport.evaluation.inputs.tables import CONFIDENCE
from cxrreport.evaluation.metrics import Pairs
from cxrreport.evaluation.radgraph import statuses
from cxrreport.evaluation.statistics import FORMS, Measure
from cxrreport.records import Interval
from cxrreport.storage.atomic_files import atomic_path

EXCLUDED, SCORED_AS_EMPTY, CUT, NOT_USED = "study excluded", "scored as empty", "cut", "not used"
"""Effects in `excluded.parquet`."""
_STARTS = ("candidate_impression", "reference_impression")
IDENTITY = ("study_id", "patient_id", "system", "candidate", "reference", *_STARTS)
"""Columns of `studies.parquet` that are not numbers of metrics, besides the confidence."""


def plain(value: Any) -> Any:
    """Convert nested results into JSON values: an interval into an object of three numbers, NaN into null."""
    match value:
        case Interval():
            return {name: plain(getattr(value, name)) for name in ("value", "low", "high")}
        case Mapping():
            return {name: plain(one) for name, one in value.items()}
        case list() | tuple():
            return [plain(one) for one in value]
        case float():
            return None if math.isnan(value) else value
    return value


def write_studies(
    path: Path,
    patients: Sequence[str],
    systems: Mapping[str, Pairs],
    measures: Mapping[str, Mapping[str, Measure]],
    confidences: Mapping[str, float],
) -> None:
    """Write one row per study and system: texts, one column per number, and the confidence of the main system."""
    parts: list[pa.Table] = []
    for name, ones in measures.items():
        pairs = systems[name]
        columns: dict[str, Any] = {
            "study_id": pa.array(pairs.references.keys(), pa.string()),
            "patient_id": pa.array(patients, pa.string()),
            "system": pa.array([name] * len(patients), pa.string()),
            "candidate": pa.array(pairs.candidates.values(), pa.string()),
            "reference": pa.array(pairs.references.values(), pa.string()),
            "candidate_impression": _starts(pairs.candidates, pairs.candidate_findings),
            "reference_impression": _starts(pairs.references, pairs.reference_findings),
        }
        columns |= {metric: pa.array(one.values, pa.float64(), from_pandas=True) for metric, one in ones.items()}
        sure = [confidences.get(study) if not parts else None for study in pairs.references]
        columns[CONFIDENCE] = pa.array(sure, pa.float64())
        parts.append(pa.table(columns))
    _write(path, pa.concat_tables(parts))


def _starts(texts: Mapping[str, str], findings: Mapping[str, str]) -> pa.Array:
    """Index of the first character of IMPRESSION in texts of FINDINGS and IMPRESSION; null in other texts."""
    starts = {study: len(text) + 1 for study, text in findings.items() if text}
    return pa.array([starts.get(study, 0) or None for study in texts], pa.int32())


def write_terms(path: Path, measures: Mapping[str, Measure]) -> None:
    """Write the terms from which `compare` recomputes corpus scores, one row per number.

    A row has the name of the score function (see `statistics.FORMS`; empty if it has none) and the terms, one list per
    study in the order of `studies.parquet`.
    """
    names = {score: name for name, score in FORMS.items()}
    table = {
        "metric": pa.array(measures.keys(), pa.string()),
        "form": pa.array(
            [names.get(one.score, "") if one.resampled is None else "" for one in measures.values()], pa.string()
        ),
        "terms": pa.array([one.terms.tolist() for one in measures.values()], pa.list_(pa.list_(pa.float64()))),
    }
    _write(path, pa.table(table))


def write_entities(path: Path, pairs: Pairs, *, lower_case: bool) -> None:
    """Write the entities of both sides of each study with their status."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for study, reference in pairs.reference_graphs.items():
            graphs = {"candidate": pairs.candidate_graphs[study], "reference": reference}
            record: dict[str, Any] = {"study_id": study}
            for (side, graph), marks in zip(
                graphs.items(), statuses(*graphs.values(), lower_case=lower_case), strict=True
            ):
                record[side] = {
                    "tokens": graph.tokens,
                    "entities": [
                        {"tokens": e.words, "label": e.label, "start": e.start, "end": e.end, "status": mark.value}
                        for e, mark in zip(graph.entities, marks, strict=True)
                    ],
                }
            file.write(json.dumps(record) + "\n")


def write_excluded(path: Path, cohort: Cohort) -> None:
    """Write the excluded studies, the failed candidates of scored ones, and the predictions without a reference."""
    rows = [
        *((*row, EXCLUDED) for row in cohort.excluded),
        *((*row, CUT if row[-1] == TOO_LONG else SCORED_AS_EMPTY) for row in cohort.failed),
        *((*row, NOT_USED) for row in cohort.unreferenced),
    ]
    names = ("study_id", "system", "reason", "effect")
    _write(path, pa.table({name: pa.array([row[n] for row in rows], pa.string()) for n, name in enumerate(names)}))


def _write(path: Path, table: pa.Table) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
