from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrreport.errors import InputError
from cxrreport.inference.baselines import other_patients
from cxrreport.records import Split, Study


def studies_of(sizes: list[int]) -> list[Study]:
    return [
        Study(study_id=f"s{patient}-{number}", patient_id=f"p{patient}", split=Split.TEST, image_ids=("i",))
        for patient, size in enumerate(sizes)
        for number in range(size)
    ]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(0, 1000))
def test_never_the_same_patient_and_every_image_once(sizes: list[int], seed: int) -> None:
    studies = studies_of(sizes)
    if 2 * max(sizes) > sum(sizes):
        with pytest.raises(InputError, match=f"one patient has {max(sizes)} of {sum(sizes)} studies"):
            other_patients(studies, seed=seed)
        return
    given_to = other_patients(studies, seed=seed)
    patient = {study.study_id: study.patient_id for study in studies}
    assert set(given_to) == set(patient)
    assert set(given_to.values()) == set(patient)
    assert all(patient[study] != patient[source] for study, source in given_to.items())


def test_the_order_of_the_studies_does_not_matter_and_the_seed_does() -> None:
    studies = studies_of([2, 1, 3, 1, 2, 2, 1])
    first = other_patients(studies, seed=0)
    assert other_patients(studies[::-1], seed=0) == first
    assert other_patients(studies, seed=1) != first


def test_no_studies() -> None:
    with pytest.raises(InputError, match="0 of 0"):
        other_patients([], seed=0)
