"""Ages, sexes and manufacturers, reduced to what may be stored."""

from __future__ import annotations

import pytest

from cxrreport.dataset import Covariates, reduce_covariates
from cxrreport.records import View


@pytest.mark.parametrize(
    ("age", "band"),
    [
        *(("045Y", "40-49"), ("089Y", "80-89"), ("090Y", "90+"), ("119Y", "90+"), ("011M", "0-9"), ("003W", "0-9")),
        *(("023D", "0-9"), ("130M", "10-19"), ("57", "50-59"), ("57.5", "50-59"), ("", ""), ("999Y", ""), ("old", "")),
    ],
)
def test_age(age: str, band: str) -> None:
    assert reduce_covariates(view=View.PA, age=age).age_band == band


@pytest.mark.parametrize(
    ("born", "seen", "band"),
    [("19500101", "20200101", "70-79"), ("20210101", "20200101", ""), ("", "20200101", ""), ("1950", "20200101", "")],
)
def test_age_from_dates(born: str, seen: str, band: str) -> None:
    assert reduce_covariates(view=View.PA, birth_date=born, study_date=seen).age_band == band


@pytest.mark.parametrize(
    ("name", "maker"),
    [
        *(("GE Healthcare", "GE"), ('"GE Medical Systems"', "GE"), ("SIEMENS Healthineers", "Siemens")),
        *(("FUJI PHOTO FILM Co. ltd.", "Fujifilm"), ("KONICA MINOLTA", "Konica Minolta"), ("Agfa-Gevaert", "Agfa")),
        *(("Genoray", "other"), ("Dr. CANARY", "other"), ("", ""), ("---", "")),
    ],
)
def test_manufacturer(name: str, maker: str) -> None:
    assert reduce_covariates(view=View.PA, manufacturer=name).manufacturer == maker


def test_sex_and_projection() -> None:
    assert reduce_covariates(view=View.AP, sex="female") == Covariates(sex="F", projection="AP")
    assert reduce_covariates(view=View.LATERAL, sex="X") == Covariates() == reduce_covariates(view=View.UNKNOWN)
