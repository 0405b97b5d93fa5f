"""Scores by who was examined and how: the manifest's covariates, and normal against abnormal references.

A study takes part with the value of its images where they agree. Every study is in one group of every covariate, so
the counts add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from cxrreport.dataset.covariates import NAMES
from cxrreport.evaluation.statistics.bootstrap import Measure, PatientBootstrap
from cxrreport.records import View

SMALL = 30
"""Patients below which a group is marked: its numbers are of few people, and its interval is rough."""
NOT_KNOWN = "not known"
SEVERAL = "several"

Groups = Mapping[str, Sequence[str]]
"""Covariate to the group of each study, in the order of the studies."""


def read_groups(manifest: Path, studies: Sequence[str]) -> dict[str, list[str]]:
    """The groups of `studies` by the covariates that the manifest holds; by projection also without them.

    Args:
        manifest: `manifest.parquet` of `ingest`.
        studies: ids that are in it.
    """
    file = pq.ParquetFile(manifest)
    held = [name for name in (*NAMES, "view") if name in file.schema_arrow.names]
    rows = file.read(columns=["study_id", *held]).to_pylist()
    if held == ["view"]:
        held = ["projection"]
        for row in rows:
            row["projection"] = row["view"] if row["view"] in (View.AP, View.PA) else ""
    held = [name for name in held if name != "view"]
    values: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        of_study = values.setdefault(row["study_id"], {name: set() for name in held})
        for name in held:
            of_study[name].add(row[name] or NOT_KNOWN)
    return {name: [_one(values[study][name]) for study in studies] for name in held}


def _one(values: set[str]) -> str:
    known = values - {NOT_KNOWN}
    return known.pop() if len(known) == 1 else SEVERAL if known else NOT_KNOWN


def by_group(
    groups: Groups, measures: Mapping[str, Measure], patients: Sequence[str], *, samples: int, seed: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Covariate to group to its counts and scores.

    Args:
        groups: see `Groups`.
        measures: name to measure, over the same studies.
        patients: of each study.
        samples: resamples of the bootstrap inside each group.
        seed: of the bootstrap.
    """
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for covariate, of_study in groups.items():
        names = np.asarray(of_study)
        table[covariate] = {}
        for name in sorted(set(of_study)):
            rows = np.flatnonzero(names == name)
            bootstrap = PatientBootstrap([patients[int(row)] for row in rows], samples=samples, seed=seed)
            table[covariate][name] = {
                "studies": len(rows),
                "patients": bootstrap.patients,
                "small": bootstrap.patients < SMALL,
                "scores": {
                    metric: bootstrap.interval(Measure(one.terms[rows], one.score, one.values[rows]))
                    for metric, one in measures.items()
                },
            }
    return table
