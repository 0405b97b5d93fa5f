"""Read what the page shows of each study from the output folder of `evaluate`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrreport.errors import InputError
from cxrreport.records import FINDING_COLUMNS, STATEMENT_PARTS
from cxrreport.review.content import Content, FindingRow, ReviewedStudy, Section, ShownReport, sections
from cxrreport.review.marks import MarkedEntity, pieces
from cxrreport.storage.command_files import current, read_evaluated, read_scores, written_by
from cxrreport.storage.decoding import parse_json

WORST_BY = "radgraph_partial"
"""Column of `studies.parquet` by which the page is ordered."""
REFERENCE = "reference"
_IDENTITY = ("study_id", "patient_id", "system", "candidate", "reference")
_STARTS = ("candidate_impression", "reference_impression")
_SIDES = ("candidate", "reference")


def read_evaluation(folder: Path, against: str = REFERENCE) -> Content:
    """Read `scores.json`, `studies.parquet`, `findings.parquet` and `entities.jsonl` of `folder`, worst study first.

    Args:
        folder: output folder of `evaluate`.
        against: the report beside that of the main system: `reference`, or the name of another system, whose reports
            have no marks and no findings.

    Raises:
        InputError: a file is missing, unreadable or inconsistent with another, or lacks a column; there is no system
            `against`. The message names the file.
    """
    summary = read_scores(folder)
    if WORST_BY not in summary["conditions"].get("metrics", {WORST_BY: {}}):
        raise InputError(
            f"{folder}: without RadGraph, whose entities the page marks; run `evaluate` with the metric radgraph and "
            "its weights, or make a page of the predictions"
        )
    annotations = dict(_read_entities(folder / "entities.jsonl"))
    rows = read_evaluated(folder / "studies.parquet", *_IDENTITY, WORST_BY).to_pylist()
    system = _main_system(rows, annotations, folder)
    marked = against == REFERENCE
    others = {row["study_id"]: row for row in rows if row["system"] == against}
    if not (marked or others) or against == system:
        names = sorted({row["system"] for row in rows} - {system})
        raise InputError(
            f"{folder / 'studies.parquet'}: no system {against!r} beside {system!r}; use one of "
            f"{', '.join([REFERENCE, *names])}"
        )
    findings = _read_findings(folder / "findings.parquet", system) if marked else {}
    section = str(summary["conditions"].get("section", ""))
    digest = hashlib.sha256()
    studies = []
    for row in rows:
        if row["system"] != system:
            continue
        study_id = row["study_id"]
        sides = annotations.get(study_id, _NOT_ANNOTATED) if marked else _NOT_ANNOTATED
        second = (row, "reference") if marked else (others[study_id], "candidate")
        digest.update(json.dumps([study_id, row["candidate"], second[0][second[1]]]).encode())
        try:
            candidate = _report(row, "candidate", section, *sides["candidate"])
            other = _report(*second, section, *sides["reference"])
        except ValueError as error:
            raise InputError(f"{folder / 'entities.jsonl'}: study {study_id}, {error}; run `evaluate` again") from error
        missed, hallucinated = (_count(sides[side][1], status) for side, status in _ONE_SIDED)
        scores = _numbers(row)
        studies.append(
            ReviewedStudy(
                study_id=study_id,
                score=float(scores.get(WORST_BY) or 0.0),
                scores=scores,
                reports=(
                    ShownReport(key="generated", title="Generated", judged=True, sections=candidate),
                    ShownReport(key=against, title=against.capitalize(), judged=False, sections=other),
                ),
                findings=findings.get(study_id, []),
                notes=[f"entities: {missed} missed, {hallucinated} hallucinated"],
            )
        )
    studies.sort(key=lambda study: (study.score or 0.0, study.study_id))
    return Content(
        system=system,
        studies=studies,
        digest=digest.hexdigest(),
        ordered_by=WORST_BY,
        marked=marked,
        summary=summary,
    )


_ONE_SIDED = (("reference", "missed"), ("candidate", "hallucinated"))
_NOT_ANNOTATED: Mapping[str, tuple[list[str], list[MarkedEntity]]] = {side: ([], []) for side in _SIDES}


def _report(
    row: Mapping[str, Any],
    side: str,
    section: str,
    tokens: Sequence[str] = (),
    entities: Sequence[MarkedEntity] = (),
) -> list[Section]:
    """The sections of one text of `studies.parquet`.

    Raises:
        ValueError: an entity does not fit the tokens.
    """
    text = row[side] or ""
    try:
        cut = pieces(text, tokens, entities)
    except ValueError as error:
        raise ValueError(f"{side}: {error}") from error
    start = row.get(f"{side}_impression")
    titles = [name.upper() for name in section.split("+")]
    if len(titles) == 1:
        return sections(cut, titles, [0])
    if start is None or start > len(text) or "".join(piece.text for piece in cut) != text:
        return sections(cut, [""], [0])  # it is not known where IMPRESSION begins
    return sections(cut, titles, [0, start])


def _numbers(row: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        name: value if value is None or math.isfinite(value) else None
        for name, value in row.items()
        if name not in (*_IDENTITY, *_STARTS) and (value is None or isinstance(value, (int, float)))
    }


def _count(entities: Sequence[MarkedEntity], status: str) -> int:
    """Number of entities with this status, without repetition."""
    return len({entity.tokens.lower() for entity in entities if entity.status == status})


def _read_findings(file: Path, system: str) -> dict[str, list[FindingRow]]:
    """The findings of each study of `system`."""
    by_study: dict[str, list[FindingRow]] = {}
    for row in read_evaluated(file, *FINDING_COLUMNS).to_pylist():
        if row["system"] == system:
            candidate, reference = (tuple(row[f"{side}{detail}"] for detail in STATEMENT_PARTS) for side in _SIDES)
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


def _read_entities(file: Path) -> Iterator[tuple[str, dict[str, tuple[list[str], list[MarkedEntity]]]]]:
    # Iterating over the file splits at line ends only; str.splitlines would also split at U+2028 within a report.
    with written_by("evaluate", file), file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = parse_json(line)
                sides = {side: _side(record[side]) for side in _SIDES}
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{file}, line {number}: no entities of a study ({error}); run `evaluate` again"
                ) from error
            yield record["study_id"], sides


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
