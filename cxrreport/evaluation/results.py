"""The tables of an evaluation: studies, terms, entities and exclusions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cxrreport.evaluation.inputs.cohort import TOO_LONG, Cohort
from cxrreport.evaluation.inputs.tables import CONFIDENCE
from cxrreport.evaluation.metrics import Pairs
from cxrreport.evaluation.radgraph import statuses
from cxrreport.evaluation.statistics import FORMS, Floats, Measure
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
    values: Mapping[str, Mapping[str, Floats]],
    confidences: Mapping[str, float],
) -> None:
    """Write one row per study and system: texts, one column per number, and the confidence of the main system.

    Args:
        path: file to write.
        patients: patient of each study.
        systems: candidates and references of every system, that of the main system first.
        values: system to number to its values by study.
        confidences: study id to the confidence of the main system.
    """
    main = next(iter(values))
    with _writing(path) as write:
        for name, ones in values.items():
            write(_study_rows(name, patients, systems[name], ones, confidences if name == main else {}))


def _study_rows(
    name: str,
    patients: Sequence[str],
    pairs: Pairs,
    values: Mapping[str, Floats],
    confidences: Mapping[str, float],
) -> pa.Table:
    columns: dict[str, Any] = {
        "study_id": pa.array(pairs.references.keys(), pa.string()),
        "patient_id": pa.array(patients, pa.string()),
        "system": pa.array([name] * len(patients), pa.string()),
        "candidate": pa.array(pairs.candidates.values(), pa.string()),
        "reference": pa.array(pairs.references.values(), pa.string()),
        "candidate_impression": _starts(pairs.candidates, pairs.candidate_findings),
        "reference_impression": _starts(pairs.references, pairs.reference_findings),
    }
    columns |= {number: pa.array(one, pa.float64(), from_pandas=True) for number, one in values.items()}
    columns[CONFIDENCE] = pa.array([confidences.get(study) for study in pairs.references], pa.float64())
    return pa.table(columns)


def _starts(texts: Mapping[str, str], findings: Mapping[str, str]) -> pa.Array:
    """Index of the first character of IMPRESSION in texts of FINDINGS and IMPRESSION; null in other texts."""
    starts = {study: len(text) + 1 for study, text in findings.items() if text}
    return pa.array([starts.get(study, 0) or None for study in texts], pa.int32())


def form_of(measure: Measure) -> str:
    """The name of a score function in `statistics.FORMS`; empty if it has none, or is no function of sums."""
    names = {score: name for name, score in FORMS.items()}
    return names.get(measure.score, "") if measure.resampled is None else ""


def write_terms(path: Path, measures: Mapping[str, Measure], forms: Mapping[str, str]) -> None:
    """Write the terms from which `compare` recomputes corpus scores, one row per number.

    A row has the name of the score function (`form_of`) and the terms, one list per study in the order of
    `studies.parquet`.
    """
    with _writing(path) as write:
        for number, measure in measures.items():
            studies, terms = measure.terms.shape
            starts = np.arange(studies + 1, dtype=np.int32) * terms
            inner = pa.ListArray.from_arrays(starts, measure.terms.ravel())
            row = pa.ListArray.from_arrays(np.array([0, studies], np.int32), inner)
            write(pa.table({"metric": [number], "form": [forms[number]], "terms": row}))


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
    with _writing(path) as write:
        write(table)


@contextmanager
def _writing(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    """A function that adds rows to a new file, so that they need not be in memory together."""
    with atomic_path(path) as temporary, ExitStack() as stack:
        writers: list[pq.ParquetWriter] = []

        def write(table: pa.Table) -> None:
            if not writers:
                writers.append(stack.enter_context(pq.ParquetWriter(temporary, table.schema, compression="zstd")))
            writers[0].write_table(table)

        yield write
