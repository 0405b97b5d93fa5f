"""Read what the page shows of each study from the output folder of `evaluate`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cxrreport.errors import InputError
from cxrreport.review.marks import MarkedEntity, Piece, pieces
from cxrreport.storage.old_names import current

WORST_BY = "radgraph_partial"
"""Column of `studies.parquet` by which the page is ordered."""
_IDENTITY = ("study_id", "patient_id", "system", "candidate", "reference")
_SIDES = ("candidate", "reference")
_DETAILS = ("", "_side", "_severity")
_FINDING_COLUMNS = (
    "study_id",
    "system",
    "finding",
    *(f"{side}{detail}" for side in _SIDES for detail in _DETAILS),
    "error",
    "contradiction",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRow:
    """Statements of both reports on one finding, a row of `findings.parquet`.

    Args:
        name: name of the finding.
        candidate: presence, sides and severity stated in the generated report; empty strings if not stated.
        reference: the same for the reference.
        error: `omitted`, `hallucinated` or empty.
        contradiction: kind of contradiction within the generated report, or empty.
    """

    name: str
    candidate: tuple[str, str, str]
    reference: tuple[str, str, str]
    error: str
    contradiction: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedStudy:
    """One study of the page.

    Args:
        score: value of `WORST_BY` in [0, 1]; the page is ordered by it.
        scores: metric to value, as in `studies.parquet`.
        generated: candidate, cut into marked pieces.
        reference: reference, cut into marked pieces.
        missed: words of the entities of the reference only, without repetition.
        hallucinated: words of the entities of the candidate only, without repetition.
        findings: CheXpert findings that either report states.
    """

    study_id: str
    score: float
    scores: Mapping[str, float | None]
    generated: Sequence[Piece]
    reference: Sequence[Piece]
    missed: Sequence[str]
    hallucinated: Sequence[str]
    findings: Sequence[FindingRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """The parts of an output folder of `evaluate` that the page needs.

    Args:
        system: name of the shown system.
        studies: studies in ascending order of score, ties by study id.
        summary: content of `scores.json`.
        digest: SHA-256 of the shown texts, hex; key of the reader's notes in the browser.
    """

    system: str
    studies: Sequence[ReviewedStudy]
    summary: Mapping[str, Any]
    digest: str

    @property
    def synthetic(self) -> bool:
        """True if the scores were made with weights that this project has trained on phantoms."""
        return bool(self.summary["conditions"].get("synthetic"))


def read_evaluation(folder: Path) -> Evaluated:
    """Read `scores.json`, `studies.parquet`, `findings.parquet` and `entities.jsonl` of `folder`.

    Raises:
        InputError: a file is missing, unreadable or inconsistent with another, or lacks a column; the message names it.
    """
    summary = _read_summary(folder / "scores.json")
    annotations = dict(_read_entities(folder / "entities.jsonl"))
    rows = _read_table(folder / "studies.parquet", (*_IDENTITY, WORST_BY))
    system = _main_system(rows, annotations, folder)
    findings = _read_findings(folder / "findings.parquet", system)
    digest = hashlib.sha256()
    studies = []
    for row in rows:
        if row["system"] != system:
            continue
        study_id = row["study_id"]
        sides = annotations.get(study_id, {"candidate": ([], []), "reference": ([], [])})
        digest.update(json.dumps([study_id, row["candidate"], row["reference"]]).encode())
        studies.append(_reviewed(row, sides, findings.get(study_id, []), folder / "entities.jsonl"))
    studies.sort(key=lambda study: (study.score, study.study_id))
    return Evaluated(system=system, studies=studies, summary=summary, digest=digest.hexdigest())


def _reviewed(
    row: Mapping[str, Any],
    sides: Mapping[str, tuple[list[str], list[MarkedEntity]]],
    findings: Sequence[FindingRow],
    file: Path,
) -> ReviewedStudy:
    cut = {}
    for side in _SIDES:
        tokens, entities = sides[side]
        try:
            cut[side] = pieces(row[side] or "", tokens, entities)
        except ValueError as error:
            raise InputError(f"{file}: study {row['study_id']}, {side}: {error}; run `evaluate` again") from error
    scores = {
        name: value if value is None or math.isfinite(value) else None
        for name, value in row.items()
        if name not in _IDENTITY and (value is None or isinstance(value, (int, float)))
    }
    return ReviewedStudy(
        study_id=row["study_id"],
        score=float(scores.get(WORST_BY) or 0.0),
        scores=scores,
        generated=cut["candidate"],
        reference=cut["reference"],
        missed=_words(sides["reference"][1], "missed"),
        hallucinated=_words(sides["candidate"][1], "hallucinated"),
        findings=findings,
    )


def _words(entities: Sequence[MarkedEntity], status: str) -> list[str]:
    return sorted({entity.tokens.lower() for entity in entities if entity.status == status})


def _read_summary(file: Path) -> dict[str, Any]:
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{file}: not found; pass the output folder of a finished `evaluate`") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: not a JSON file; run `evaluate` again") from error
    if not isinstance(summary, dict) or not isinstance(summary.get("conditions"), dict):
        raise InputError(f"{file}: no 'conditions'; pass the output folder of `evaluate`")
    renamed: dict[str, Any] = current(summary)
    return renamed


def _read_findings(file: Path, system: str) -> dict[str, list[FindingRow]]:
    """The findings of each study of `system`."""
    by_study: dict[str, list[FindingRow]] = {}
    for row in _read_table(file, _FINDING_COLUMNS):
        if row["system"] == system:
            candidate, reference = (tuple(row[f"{side}{detail}"] for detail in _DETAILS) for side in _SIDES)
            by_study.setdefault(row["study_id"], []).append(
                FindingRow(
                    name=row["finding"],
                    candidate=candidate,
                    reference=reference,
                    error=current(row["error"]),
                    contradiction=row["contradiction"],
                )
            )
    return by_study


def _read_table(file: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    try:
        table = pq.read_table(file)
    except FileNotFoundError as error:
        raise InputError(f"{file}: not found; pass the output folder of a finished `evaluate`") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file}: not a Parquet file; run `evaluate` again") from error
    table = table.rename_columns(current(table.column_names))
    lacking = [name for name in columns if name not in table.column_names]
    if lacking:
        raise InputError(f"{file}: no column {', '.join(lacking)}; run `evaluate` again")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _read_entities(file: Path) -> Iterator[tuple[str, dict[str, tuple[list[str], list[MarkedEntity]]]]]:
    number = 0
    try:
        # Iterating over the file splits at line ends only; str.splitlines would also split at U+2028 within a report.
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):  # noqa: B007 - the error names the line
                record = json.loads(line)
                yield record["study_id"], {side: _side(record[side]) for side in _SIDES}
    except FileNotFoundError as error:
        raise InputError(f"{file}: not found; pass the output folder of a finished `evaluate`") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text; run `evaluate` again") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}, line {number}: no entities of a study ({error}); run `evaluate` again") from error


def _side(record: Mapping[str, Any]) -> tuple[list[str], list[MarkedEntity]]:
    return list(record["tokens"]), [
        MarkedEntity(**entity | {"status": current(entity["status"])}) for entity in record["entities"]
    ]


def _main_system(rows: Sequence[Mapping[str, Any]], annotations: Mapping[str, Any], folder: Path) -> str:
    # The first system in the table is the main one; its baselines follow.
    if not rows:
        raise InputError(f"{folder / 'studies.parquet'}: contains no study")
    system: str = rows[0]["system"]
    unknown = sorted(set(annotations) - {row["study_id"] for row in rows if row["system"] == system})
    if unknown:
        raise InputError(
            f"{folder / 'entities.jsonl'}: {len(unknown)} studies are not in studies.parquet for "
            f"{system!r} (first: {unknown[0]}); run `evaluate` again"
        )
    return system
