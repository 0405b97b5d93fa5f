"""What the page shows of one study, read from the output folders of `evaluate` and `ingest`."""

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
from cxrreport.review.marks import Entity, Piece, pieces

WORST_BY = "radgraph_partial"
"""The column of `studies.parquet` that orders the page."""
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
class Finding:
    """What both reports state of one finding, as in `findings.parquet`.

    Args:
        name: of the finding.
        candidate: presence, sides and severity that the generated report states; empty strings where it does not.
        reference: the same of the reference.
        error: `omitted`, `invented` or nothing.
        contradiction: how the generated report contradicts itself on it, or nothing.
    """

    name: str
    candidate: tuple[str, str, str]
    reference: tuple[str, str, str]
    error: str
    contradiction: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """One study of the page.

    Args:
        score: value of `WORST_BY` in [0, 1]; the page is ordered by it.
        scores: metric to value, as in `studies.parquet`.
        generated: the candidate, cut into marked pieces.
        reference: the reference, cut into marked pieces.
        missed: words of the entities that only the reference has, each once.
        invented: words of the entities that only the candidate has, each once.
        findings: what either report states of the findings of CheXpert.
    """

    study_id: str
    score: float
    scores: Mapping[str, float | None]
    generated: Sequence[Piece]
    reference: Sequence[Piece]
    missed: Sequence[str]
    invented: Sequence[str]
    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """An output folder of `evaluate`, as far as the page needs it.

    Args:
        system: name of the system whose studies are shown.
        studies: worst first, ties by study id.
        summary: `scores.json`.
        digest: SHA-256 of what is shown, hex; keys the reader's notes in the browser.
    """

    system: str
    studies: Sequence[Reviewed]
    summary: Mapping[str, Any]
    digest: str

    @property
    def synthetic(self) -> bool:
        """True where the conditions say that the scores were made with weights of this project."""
        return bool(self.summary["conditions"].get("synthetic"))


def read_evaluation(folder: Path) -> Evaluated:
    """Read `scores.json`, `studies.parquet`, `findings.parquet` and `entities.jsonl` of `folder`.

    Raises:
        InputError: a file is missing or cannot be read, lacks a column, or two files disagree; the message names it.
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
    sides: Mapping[str, tuple[list[str], list[Entity]]],
    findings: Sequence[Finding],
    file: Path,
) -> Reviewed:
    cut = {}
    for side in _SIDES:
        tokens, entities = sides[side]
        try:
            cut[side] = pieces(row[side] or "", tokens, entities)
        except ValueError as error:
            raise InputError(f"{file}: study {row['study_id']}, {side}: {error}; run evaluate again") from error
    scores = {
        name: value if value is None or math.isfinite(value) else None
        for name, value in row.items()
        if name not in _IDENTITY and (value is None or isinstance(value, (int, float)))
    }
    return Reviewed(
        study_id=row["study_id"],
        score=float(scores.get(WORST_BY) or 0.0),
        scores=scores,
        generated=cut["candidate"],
        reference=cut["reference"],
        missed=_words(sides["reference"][1], "missed"),
        invented=_words(sides["candidate"][1], "invented"),
        findings=findings,
    )


def _words(entities: Sequence[Entity], status: str) -> list[str]:
    return sorted({entity.tokens.lower() for entity in entities if entity.status == status})


def _read_summary(file: Path) -> dict[str, Any]:
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{file}: missing; give the output folder of a finished evaluate") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as JSON; run evaluate again") from error
    if not isinstance(summary, dict) or not isinstance(summary.get("conditions"), dict):
        raise InputError(f"{file}: no scores of evaluate (no 'conditions'); give the output folder of evaluate")
    return summary


def _read_findings(file: Path, system: str) -> dict[str, list[Finding]]:
    """What both sides state of each study of `system`."""
    by_study: dict[str, list[Finding]] = {}
    for row in _read_table(file, _FINDING_COLUMNS):
        if row["system"] == system:
            candidate, reference = (tuple(row[f"{side}{detail}"] for detail in _DETAILS) for side in _SIDES)
            by_study.setdefault(row["study_id"], []).append(
                Finding(
                    name=row["finding"],
                    candidate=candidate,
                    reference=reference,
                    error=row["error"],
                    contradiction=row["contradiction"],
                )
            )
    return by_study


def _read_table(file: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    try:
        table = pq.read_table(file)
    except FileNotFoundError as error:
        raise InputError(f"{file}: missing; give the output folder of a finished evaluate") from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file}: cannot be read as Parquet; run evaluate again") from error
    lacking = [name for name in columns if name not in table.column_names]
    if lacking:
        raise InputError(f"{file}: no column {', '.join(lacking)}; give the output folder of evaluate")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _read_entities(file: Path) -> Iterator[tuple[str, dict[str, tuple[list[str], list[Entity]]]]]:
    number = 0
    try:
        # Iterating the file splits at line ends only; str.splitlines would also split at U+2028 inside a report.
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):  # noqa: B007 - the handlers below name the line
                record = json.loads(line)
                yield record["study_id"], {side: _side(record[side]) for side in _SIDES}
    except FileNotFoundError as error:
        raise InputError(f"{file}: missing; give the output folder of a finished evaluate") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text; run evaluate again") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}, line {number}: not a study's entities ({error}); run evaluate again") from error


def _side(record: Mapping[str, Any]) -> tuple[list[str], list[Entity]]:
    return list(record["tokens"]), [Entity(**entity) for entity in record["entities"]]


def _main_system(rows: Sequence[Mapping[str, Any]], annotations: Mapping[str, Any], folder: Path) -> str:
    # The first system in the table is the main one; the controls come after it.
    if not rows:
        raise InputError(f"{folder / 'studies.parquet'}: no study in it; nothing to review")
    system: str = rows[0]["system"]
    strangers = sorted(set(annotations) - {row["study_id"] for row in rows if row["system"] == system})
    if strangers:
        raise InputError(
            f"{folder / 'entities.jsonl'}: {len(strangers)} studies that studies.parquet does not have for "
            f"{system!r} (first: {strangers[0]}); run evaluate again"
        )
    return system
