"""Images of other patients, for the baseline `shuffled`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from cxrreport.errors import InputError
from cxrreport.records import Study


def other_patients(studies: Sequence[Study], *, seed: int) -> dict[str, str]:
    """Assign to every study the image of another patient's study; every image is used exactly once.

    The studies form a ring: patients in random order, the studies of each patient next to each other. Every study takes
    the image that is the same random number of places ahead. The number is at least the largest count of studies per
    patient, and at most the number of studies minus that count.

    Args:
        studies: in any order, which does not affect the result.
        seed: seed of the random numbers.

    Returns:
        Study id to the id of the study whose image it takes.

    Raises:
        InputError: one patient has more than half of the studies, so that no assignment exists.
    """
    largest = max(Counter(study.patient_id for study in studies).values(), default=0)
    if not studies or largest > len(studies) - largest:
        raise InputError(
            f"baseline 'shuffled': one patient has {largest} of {len(studies)} studies, so not every study can get "
            "another patient's image; include more studies, or use the baseline 'blank'"
        )
    random = np.random.default_rng(seed)
    by_patient: dict[str, list[str]] = {}
    for study in sorted(studies, key=lambda study: study.study_id):
        by_patient.setdefault(study.patient_id, []).append(study.study_id)
    patients = sorted(by_patient)
    ring: list[str] = []
    for patient in random.permutation(len(patients)):
        study_ids = by_patient[patients[patient]]
        ring += [study_ids[place] for place in random.permutation(len(study_ids))]
    ahead = int(random.integers(largest, len(ring) - largest, endpoint=True))
    return {study_id: ring[(place + ahead) % len(ring)] for place, study_id in enumerate(ring)}
