"""Images and prior studies of other patients, for the baselines `shuffled` and `shuffled_prior`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cxrreport.dataset import ImageRole, ModelInput
from cxrreport.errors import InputError
from cxrreport.records import Study


def other_patients(studies: Sequence[Study], *, seed: int, baseline: str = "shuffled") -> dict[str, str]:
    """Assign to every study the image of another patient's study; every image is used exactly once.

    The studies form a ring: patients in random order, the studies of each patient next to each other. Every study takes
    the image that is the same random number of places ahead. The number is at least the largest count of studies per
    patient, and at most the number of studies minus that count.

    Args:
        studies: in any order, which does not affect the result.
        seed: seed of the random numbers.
        baseline: for errors.

    Returns:
        Study id to the id of the study whose image it takes.

    Raises:
        InputError: one patient has more than half of the studies, so that no assignment exists.
    """
    largest = max(Counter(study.patient_id for study in studies).values(), default=0)
    if not studies or largest > len(studies) - largest:
        raise InputError(
            f"baseline '{baseline}': one patient has {largest} of {len(studies)} studies, so not every study can get "
            "those of another patient; include more studies, or use another baseline"
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


def with_images_of(own: ModelInput, other: ModelInput) -> ModelInput:
    """The input of a study with the images of another study; the image of the prior study stays its own."""
    images = [image for image in zip(other.image_ids, other.roles, strict=True) if image[1] is not ImageRole.PRIOR]
    images += [image for image in zip(own.image_ids, own.roles, strict=True) if image[1] is ImageRole.PRIOR]
    ids, roles = zip(*images, strict=True)
    return replace(own, image_ids=ids, roles=roles)


def with_other_priors(studies: Sequence[Study], *, seed: int) -> list[Study]:
    """Every study that has a prior study with that of another patient; each prior study is used once.

    Raises:
        InputError: as `other_patients`, or no study has a prior study.
    """
    prior_of = {study.study_id: study.prior for study in studies if study.prior is not None}
    if not prior_of:
        raise InputError("baseline 'shuffled_prior': no study has a prior study; ingest studies with dates")
    having = [study for study in studies if study.study_id in prior_of]
    source = other_patients(having, seed=seed, baseline="shuffled_prior")
    return [
        replace(study, prior=prior_of[source[study.study_id]]) if study.study_id in source else study
        for study in studies
    ]
