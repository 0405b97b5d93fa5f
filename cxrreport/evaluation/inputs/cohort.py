"""The studies that every system is scored on, why the others are excluded, and the candidates that failed.

Only references decide which studies are scored. A system cannot remove a study by failing on it.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxrreport.errors import ScoreError
from cxrreport.evaluation.inputs import tables
from cxrreport.evaluation.inputs.tables import Predictions, References

logger = logging.getLogger(__name__)

REFERENCE = "reference"
"""Stands for a system's name if a study is excluded because of its reference."""
NO_REFERENCE = "no-reference"
EMPTY_REFERENCE = "empty-reference"
NO_PREDICTION = "no-prediction"
MISSING_TEXT = "missing-text"
TOO_LONG = "too-long"
RULE = f"missing or empty: scored as an empty report; longer than {tables.MAX_TOKENS} tokens: cut to that length"
"""What is scored for a candidate that is not a whole report, as conditions state it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """The studies of an evaluation.

    Args:
        studies: ids of the scored studies, sorted.
        excluded: excluded studies of the same splits, as (study, system, reason).
        failed: candidates of scored studies that are missing or too long, as (study, system, reason).
        unreferenced: predictions without a reference, as (study, system, reason).
    """

    studies: Sequence[str]
    excluded: Sequence[tuple[str, str, str]]
    failed: Sequence[tuple[str, str, str]]
    unreferenced: Sequence[tuple[str, str, str]]

    @property
    def digest(self) -> str:
        """SHA-256 of the study ids, hex."""
        return hashlib.sha256("\n".join(self.studies).encode()).hexdigest()

    def counts(self, references: References, systems: Mapping[str, Predictions]) -> dict[str, Any]:
        """Numbers of studies; `references` = `scored` + `excluded` + `other_splits`."""
        unknown = Counter(system for _, system, _ in self.unreferenced)
        return {
            "references": len(references.texts),
            "other_splits": len(references.texts) - len(self.studies) - len(self.excluded),
            "scored": len(self.studies),
            "excluded": len(self.excluded),
            "excluded_by_reason": dict(Counter(reason for _, _, reason in self.excluded)),
            "patients": len({references.patients[study] for study in self.studies}),
            "predictions_without_reference": {name: unknown[name] for name in systems},
            "empty_predictions": {
                name: sum(system.texts.get(study) == "" for study in self.studies) for name, system in systems.items()
            },
            "failed_predictions": {
                name: dict(Counter(reason for _, system, reason in self.failed if system == name)) for name in systems
            },
            "texts_without_headers": {name: system.without_headers for name, system in systems.items()},
        }


def choose_studies(references: References, systems: Mapping[str, Predictions], main: str) -> Cohort:
    """Choose the studies with a reference text, from the splits of the predictions of `main`.

    Raises:
        ScoreError: no study can be scored.
    """
    predictions = systems[main]
    common = predictions.texts.keys() & references.texts.keys()
    if not common:
        raise ScoreError(
            f"{predictions.source} and {references.source} have no study in common (first ids: "
            f"{min(predictions.texts)} and {min(references.texts)}); both must use the same study ids"
        )
    # Predictions are usually of one split; studies of other splits are not missing.
    splits = {references.splits.get(study) for study in common}
    pool = sorted(study for study in references.texts if references.splits.get(study) in splits)
    problems = {study: _reference_problem(references.texts[study]) for study in pool}
    studies = [study for study in pool if problems[study] is None]
    if not studies:
        reasons = sorted({reason for reason in problems.values() if reason})
        raise ScoreError(f"{references.source}: none of {len(pool)} studies can be scored ({', '.join(reasons)})")
    failed = []
    for name, system in systems.items():
        found = [(study, name, reason) for study in studies if (reason := _failure(study, system))]
        if found:
            reasons = sorted({reason for _, _, reason in found})
            logger.warning(
                "%s: %d of %d predictions of %r are missing or too long (%s); they are scored as empty or cut",
                system.source,
                len(found),
                len(studies),
                name,
                ", ".join(reasons),
            )
        failed += found
    return Cohort(
        studies=studies,
        excluded=[(study, REFERENCE, reason) for study, reason in problems.items() if reason],
        failed=failed,
        unreferenced=[
            (study, name, NO_REFERENCE)
            for name, system in systems.items()
            for study in sorted(system.texts.keys() - references.texts.keys())
        ],
    )


def scored_texts(system: Predictions, studies: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The candidates of a system as they are scored (see `RULE`), and the FINDINGS with which they begin."""
    texts = {study: tables.cut(system.texts.get(study) or "") for study in studies}
    findings = {study: system.findings.get(study, "") for study in studies}
    return texts, {study: part for study, part in findings.items() if texts[study].startswith(part)}


def _reference_problem(text: str) -> str | None:
    """Why a study cannot be scored because of its reference; `None` if it can."""
    if not text:
        return EMPTY_REFERENCE
    return TOO_LONG if tables.too_long(text) else None


def _failure(study: str, system: Predictions) -> str | None:
    """Why a system has no whole report for a study; `None` if it has one, or an empty one."""
    if study not in system.texts:
        return NO_PREDICTION
    text = system.texts[study]
    if text is None:
        return MISSING_TEXT
    return TOO_LONG if tables.too_long(text) else None
