"""The studies that every system is scored on, and why the others are excluded."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxrreport.errors import ScoreError
from cxrreport.evaluation import tables
from cxrreport.evaluation.tables import Predictions, References

REFERENCE = "reference"
"""Stands for a system's name if a study is excluded because of its reference."""
NO_REFERENCE = "no-reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """The studies of an evaluation.

    Args:
        studies: ids of the scored studies, sorted.
        excluded: excluded studies of the same splits, as (study, system, reason).
        unreferenced: predictions without a reference, as (study, system, reason).
    """

    studies: Sequence[str]
    excluded: Sequence[tuple[str, str, str]]
    unreferenced: Sequence[tuple[str, str, str]]

    @property
    def digest(self) -> str:
        """SHA-256 of the study ids, hex."""
        return hashlib.sha256("\n".join(self.studies).encode()).hexdigest()

    def counts(self, references: References, systems: Mapping[str, Predictions]) -> dict[str, Any]:
        """Numbers of studies; `references` = `scored` + `excluded` + `other_splits`."""
        reasons = Counter(
            reason if system == REFERENCE else f"{reason} ({system})" for _, system, reason in self.excluded
        )
        unknown = Counter(system for _, system, _ in self.unreferenced)
        return {
            "references": len(references.texts),
            "other_splits": len(references.texts) - len(self.studies) - len(self.excluded),
            "scored": len(self.studies),
            "excluded": len(self.excluded),
            "excluded_by_reason": dict(reasons),
            "patients": len({references.patients[study] for study in self.studies}),
            "predictions_without_reference": {name: unknown[name] for name in systems},
            "empty_predictions": {
                name: sum(not system.texts[study] for study in self.studies) for name, system in systems.items()
            },
            "texts_without_headers": {name: system.without_headers for name, system in systems.items()},
        }


def choose_studies(references: References, systems: Mapping[str, Predictions], main: str) -> Cohort:
    """Choose the studies that have a reference text and a prediction of every system.

    They are from the splits of the predictions of `main`. An empty prediction is scored; a missing one excludes the
    study for every system.

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
    studies, excluded = [], []
    for study in pool:
        if (problem := _problem(study, references, systems)) is None:
            studies.append(study)
        else:
            excluded.append((study, *problem))
    if not studies:
        reasons = sorted({reason for _, _, reason in excluded})
        raise ScoreError(f"{predictions.source}: none of {len(pool)} studies can be scored ({', '.join(reasons)})")
    unreferenced = [
        (study, name, NO_REFERENCE)
        for name, system in systems.items()
        for study in sorted(system.texts.keys() - references.texts.keys())
    ]
    return Cohort(studies=studies, excluded=excluded, unreferenced=unreferenced)


def _problem(study: str, references: References, systems: Mapping[str, Predictions]) -> tuple[str, str] | None:
    """The system (`REFERENCE` for the references) and the reason for which a study is excluded."""
    if not references.texts[study]:
        return REFERENCE, "empty-reference"
    if tables.too_long(references.texts[study]):
        return REFERENCE, "too-long"
    for name, system in systems.items():
        if study not in system.texts:
            return name, "no-prediction"
        text = system.texts[study]
        if text is None:
            return name, "missing-text"
        if tables.too_long(text):
            return name, "too-long"
    return None
