"""Which earlier study is shown beside each study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cxrreport.errors import InputError
from cxrreport.records import Study
from cxrreport.storage.tables import read_text_table


def read_priors(path: Path, studies: Mapping[str, Study]) -> dict[str, str]:
    """Read a table with study_id and prior_study_id, for the studies of a manifest.

    Raises:
        InputError: the table cannot be read, a study is its own prior or has two, no row is of these studies, or a
            prior is of another patient.
    """
    priors: dict[str, str] = {}
    for number, row in enumerate(read_text_table(path, required=("study_id", "prior_study_id")), start=1):
        study, prior = row["study_id"], row["prior_study_id"]
        if study not in studies or prior not in studies:
            continue
        where = f"{path}, row {number}"
        if study == prior or priors.setdefault(study, prior) != prior:
            raise InputError(f"{where}: study {study} is its own prior or has two; keep one row with an earlier study")
        if studies[study].patient_id != studies[prior].patient_id:
            raise InputError(f"{where}: study {prior} is of another patient than study {study}; correct the row")
    if not priors:
        raise InputError(f"{path}: no row names two studies of the data; use the study ids of their manifest")
    return priors
