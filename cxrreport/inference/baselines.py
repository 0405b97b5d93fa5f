"""Inputs that are wrong on purpose, to measure how much a model looks at its image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from cxrreport.errors import InputError
from cxrreport.records import Study


def other_patients(studies: Sequence[Study], *, seed: int) -> dict[str, str]:
    """Give every study the image of another one, never of the same patient; every image is used exactly once.

    The studies stand in a ring, patients in random order and each patient's studies together. Every study looks the
    same random number of places ahead, at least as many as the largest patient has studies and at most so many that
    the same patient is not reached from behind.

    Args:
        studies: in any order; the result depends on which they are and on `seed` alone.
        seed: of the random numbers.

    Returns:
        study id to the id of the study whose image it gets.

    Raises:
        InputError: one patient has more than half of the studies, so that no such exchange exists.
    """
    largest = max(Counter(study.patient_id for study in studies).values(), default=0)
    if not studies or largest > len(studies) - largest:
        raise InputError(
            f"control 'shuffled': one patient has {largest} of {len(studies)} studies, so not every study can get "
            "another patient's image; take more studies, or the control 'blank'"
        )
    random = np.random.default_rng(seed)
    by_patient: dict[str, list[str]] = {}
    for study in sorted(studies, key=lambda one: one.study_id):
        by_patient.setdefault(study.patient_id, []).append(study.study_id)
    patients = sorted(by_patient)
    ring: list[str] = []
    for patient in random.permutation(len(patients)):
        own = by_patient[patients[patient]]
        ring += [own[place] for place in random.permutation(len(own))]
    ahead = int(random.integers(largest, len(ring) - largest, endpoint=True))
    return {study_id: ring[(place + ahead) % len(ring)] for place, study_id in enumerate(ring)}
