"""Phantom patients and their studies: what determines their files, from a seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from cxrreport.demo.phantoms.changes import sample_pair
from cxrreport.demo.phantoms.drawing import Anatomy, in_new_position, sample_anatomy
from cxrreport.demo.phantoms.findings import Name, PhantomFinding, masked, sample_findings
from cxrreport.demo.phantoms.grammar import Mentions, WrittenReport, sample_style, write_comparing, write_report
from cxrreport.records import Split, View

_LATERAL = 0.06
_NO_LATERAL = 0.1
_SHARES = ((Split.TEST, 0.20), (Split.VALIDATE, 0.10))
# Image sizes of real detectors, rows x columns.
_DETECTORS = ((2544, 3056), (3056, 2544), (2022, 2022), (1760, 1760))


@dataclass(frozen=True, slots=True)
class PhantomStudy:
    """Everything that determines the files of one study."""

    patient_id: str
    study_id: str
    split: Split
    view: View
    anatomy: Anatomy
    findings: tuple[PhantomFinding, ...]
    written: WrittenReport
    rows: int
    columns: int
    date: str
    lateral: bool
    seed: int
    time: str = "120000"
    seen_laterally: tuple[PhantomFinding, ...] = ()
    """What the lateral view shows; nothing where `ingest` is to exclude it."""


def plan_studies(
    patients: int, seed: int, *, smallest: int, full_size: int, mentions: Mentions | None = None
) -> list[PhantomStudy]:
    """Sample patients and their studies.

    Args:
        patients: number of patients; 20% of them are for testing and 10% for validation.
        seed: random seed.
        smallest: shortest side of the images in pixels, except for the full-size ones.
        full_size: number of studies with the image size of a real detector.
        mentions: how often reports mention what; everything if `None`.
    """
    rng = np.random.default_rng([seed, 0])
    studies: list[PhantomStudy] = []
    for index, split in enumerate(_splits(patients, rng)):
        style, anatomy = sample_style(rng), sample_anatomy(rng)
        prior: tuple[PhantomFinding, ...] | None = None
        for visit in range(1 + int(rng.random() < 0.3)):
            findings = masked(_follow(prior, rng) if prior is not None else sample_findings(rng))
            rows, columns = (int(side) for side in rng.integers(smallest, smallest * 5 // 4, 2))
            if len(studies) < full_size:
                rows, columns = _DETECTORS[len(studies) % len(_DETECTORS)]
            studies.append(
                PhantomStudy(
                    patient_id=str(10_000_000 + index),
                    study_id=str(50_000_000 + 1 + len(studies)),
                    split=split,
                    view=View.PA if rng.random() < 0.6 else View.AP,
                    anatomy=anatomy if prior is None else in_new_position(anatomy, rng),
                    findings=findings,
                    written=write_report(findings, rng, style=style, prior=prior, mentions=mentions),
                    rows=rows,
                    columns=columns,
                    date=f"21{index % 80 + 10}{1 + visit:02d}{1 + index % 28:02d}",
                    lateral=bool(rng.random() < _LATERAL),
                    seed=int(rng.integers(2**31)),
                )
            )
            prior = findings
    return studies


def plan_pairs(patients: int, seed: int, *, smallest: int) -> list[PhantomStudy]:
    """Sample patients with two studies each, of two views, whose second report compares them.

    The studies of a patient are one day to a year apart. A tenth of the studies without a posterior effusion have no
    lateral view.

    Args:
        patients: number of patients, in the splits of `plan_studies`.
        seed: random seed.
        smallest: shortest side of the images in pixels.
    """
    rng = np.random.default_rng([seed, 1])
    studies: list[PhantomStudy] = []
    for index, split in enumerate(_splits(patients, rng)):
        style, anatomy = sample_style(rng), sample_anatomy(rng)
        first = date(2110 + index % 80, 1 + index % 12, 1 + index % 28)
        days = int(np.rint(np.exp(rng.uniform(0, np.log(365)))))
        prior: tuple[PhantomFinding, ...] | None = None
        for visit, findings in enumerate(sample_pair(rng)):
            rows, columns = (int(side) for side in rng.integers(smallest, smallest * 5 // 4, 2))
            studies.append(
                PhantomStudy(
                    patient_id=str(20_000_000 + index),
                    study_id=str(60_000_000 + 1 + len(studies)),
                    split=split,
                    view=View.PA if rng.random() < 0.6 else View.AP,
                    anatomy=anatomy if prior is None else in_new_position(anatomy, rng),
                    findings=findings,
                    written=write_comparing(findings, rng, style=style, prior=prior),
                    rows=rows,
                    columns=columns,
                    date=f"{first + timedelta(days=days * visit):%Y%m%d}",
                    time=f"{int(rng.integers(24)):02d}{int(rng.integers(60)):02d}00",
                    lateral=bool(rng.random() > _NO_LATERAL) or any(f.zone == "posterior" for f in findings),
                    seed=int(rng.integers(2**31)),
                    seen_laterally=findings,
                )
            )
            prior = findings
    return studies


def _splits(patients: int, rng: np.random.Generator) -> list[Split]:
    """The split of each patient."""
    order = rng.permutation(patients)
    bounds = np.cumsum([round(share * patients) for _, share in _SHARES])
    places = np.argsort(order)
    return [
        next((s for (s, _), bound in zip(_SHARES, bounds, strict=True) if place < bound), Split.TRAIN)
        for place in places
    ]


def _follow(prior: tuple[PhantomFinding, ...], rng: np.random.Generator) -> tuple[PhantomFinding, ...]:
    """Sample the findings of a follow-up study: earlier ones persist with probability 0.6 (pacemakers always)."""
    kept = [f for f in prior if f.name is Name.PACEMAKER or rng.random() < 0.6]
    names = {f.name for f in kept}
    return tuple(sorted([*kept, *(f for f in sample_findings(rng, normal=0.6) if f.name not in names)]))


def image_id(study: PhantomStudy, lateral: bool) -> str:
    """The DICOM id of an image in the tables, a hash of study and view."""
    digest = hashlib.sha256(f"{study.patient_id}/{study.study_id}/{study.seed}/{lateral}".encode()).hexdigest()
    return "-".join(digest[place : place + 8] for place in range(0, 40, 8))


def view_code(study: PhantomStudy, lateral: bool) -> str:
    """ViewPosition in the tables."""
    return "LATERAL" if lateral else study.view.value
