"""Which studies are scored, for every system alike, and why the others are not."""

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
"""In the place of a system's name, where it is the reference that keeps a study out."""
NO_REFERENCE = "no-reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """The studies of an evaluation.

    Args:
        studies: those that every system is scored on, sorted.
        left_out: those of the same splits that are not, as (study, system, reason).
        strangers: predictions for studies that the references do not know, as (study, system, reason).
    """

    studies: Sequence[str]
    left_out: Sequence[tuple[str, str, str]]
    strangers: Sequence[tuple[str, str, str]]

    @property
    def digest(self) -> str:
        """SHA-256 of the studies' ids, hex."""
        return hashlib.sha256("\n".join(self.studies).encode()).hexdigest()

    def counts(self, references: References, systems: Mapping[str, Predictions]) -> dict[str, Any]:
        """What became of every study; `references` = `scored` + `excluded` + `other_splits`."""
        reasons = Counter(
            reason if system == REFERENCE else f"{reason} ({system})" for _, system, reason in self.left_out
        )
        unknown = Counter(system for _, system, _ in self.strangers)
        return {
            "references": len(references.texts),
            "other_splits": len(references.texts) - len(self.studies) - len(self.left_out),
            "scored": len(self.studies),
            "excluded": len(self.left_out),
            "excluded_by_reason": dict(reasons),
            "patients": len({references.patients[study] for study in self.studies}),
            "predictions_without_reference": {name: unknown[name] for name in systems},
            "empty_predictions": {
                name: sum(not system.texts[study] for study in self.studies) for name, system in systems.items()
            },
            "texts_without_headers": {name: system.without_headers for name, system in systems.items()},
        }


def choose_studies(references: References, systems: Mapping[str, Predictions], main: str) -> Cohort:
    """The studies of the splits that the predictions of `main` are from, that have a reference text and a prediction of
    every system. An empty prediction counts; a missing one leaves the study out, for every system.

    Raises:
        ScoreError: there is no such study.
    """
    predictions = systems[main]
    known = predictions.texts.keys() & references.texts.keys()
    if not known:
        raise ScoreError(
            f"{predictions.source} and {references.source} have no study in common (first ids: "
            f"{min(predictions.texts)} and {min(references.texts)}); both must use the same study ids"
        )
    # Predictions are usually of one split; the others are not missing.
    splits = {references.splits.get(study) for study in known}
    pool = sorted(study for study in references.texts if references.splits.get(study) in splits)
    studies, left_out = [], []
    for study in pool:
        if (problem := _problem(study, references, systems)) is None:
            studies.append(study)
        else:
            left_out.append((study, *problem))
    if not studies:
        reasons = sorted({reason for _, _, reason in left_out})
        raise ScoreError(f"{predictions.source}: none of {len(pool)} studies can be scored ({', '.join(reasons)})")
    strangers = [
        (study, name, NO_REFERENCE)
        for name, system in systems.items()
        for study in sorted(system.texts.keys() - references.texts.keys())
    ]
    return Cohort(studies=studies, left_out=left_out, strangers=strangers)


def _problem(study: str, references: References, systems: Mapping[str, Predictions]) -> tuple[str, str] | None:
    """Why a study is left out: the system (`REFERENCE` for the references) and the reason."""
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
