"""Scores by covariates of the manifest, and for normal and abnormal references.

A study has the value of its images if they agree. Every study is in exactly one group of every covariate, so the counts
add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from cxrreport.dataset import COVARIATES
from cxrreport.evaluation.statistics import Measure, PatientBootstrap
from cxrreport.records import View

SMALL = 30
"""Number of patients below which a group is marked as small, because its interval is unreliable."""
UNKNOWN = "not known"
SEVERAL = "several"

Groups = Mapping[str, Sequence[str]]
"""Covariate to the group of each study, in the order of the studies."""


def read_groups(manifest: Path, studies: Sequence[str]) -> dict[str, list[str]]:
    """Read the groups of `studies` for each covariate of the manifest; without covariates, by projection only.

    Args:
        manifest: `manifest.parquet` of `ingest`.
        studies: study ids of the manifest.
    """
    file = pq.ParquetFile(manifest)
    held = [name for name in (*COVARIATES, "view") if name in file.schema_arrow.names]
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
            of_study[name].add(row[name] or UNKNOWN)
    return {name: [_group(values[study][name]) for study in studies] for name in held}


def _group(values: set[str]) -> str:
    known = values - {UNKNOWN}
    return known.pop() if len(known) == 1 else SEVERAL if known else UNKNOWN


def by_group(
    groups: Groups, measures: Mapping[str, Measure], patients: Sequence[str], *, samples: int, seed: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """Counts and scores of each group of each covariate.

    Args:
        groups: see `Groups`.
        measures: name to measure, for the same studies.
        patients: patient of each study.
        samples: number of resamples of the bootstrap in each group.
        seed: seed of the bootstrap.
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
