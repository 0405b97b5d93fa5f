"""Phantom patients and their studies: what determines their files, from a seed."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

import numpy as np

from cxrreport.demo.phantoms.drawing import Anatomy, sample_anatomy
from cxrreport.demo.phantoms.findings import Name, PhantomFinding, masked, sample_findings
from cxrreport.demo.phantoms.grammar import WrittenReport, sample_style, write_report
from cxrreport.records import Split, View

_LATERAL = 0.06
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


def plan_studies(patients: int, seed: int, *, smallest: int, full_size: int) -> list[PhantomStudy]:
    """Sample patients and their studies.

    Args:
        patients: number of patients; 20% of them are for testing and 10% for validation.
        seed: random seed.
        smallest: shortest side of the images in pixels, except for the full-size ones.
        full_size: number of studies with the image size of a real detector.
    """
    rng = np.random.default_rng([seed, 0])
    studies: list[PhantomStudy] = []
    order = rng.permutation(patients)
    bounds = np.cumsum([round(share * patients) for _, share in _SHARES])
    for index in range(patients):
        place = int(np.flatnonzero(order == index)[0])
        split = next((s for (s, _), bound in zip(_SHARES, bounds, strict=True) if place < bound), Split.TRAIN)
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
                    anatomy=anatomy if prior is None else _again(anatomy, rng),
                    findings=findings,
                    written=write_report(findings, rng, style=style, prior=prior),
                    rows=rows,
                    columns=columns,
                    date=f"21{index % 80 + 10}{1 + visit:02d}{1 + index % 28:02d}",
                    lateral=bool(rng.random() < _LATERAL),
                    seed=int(rng.integers(2**31)),
                )
            )
            prior = findings
    return studies


def _follow(prior: tuple[PhantomFinding, ...], rng: np.random.Generator) -> tuple[PhantomFinding, ...]:
    """Sample the findings of a follow-up study: earlier ones persist with probability 0.6 (pacemakers always)."""
    kept = [f for f in prior if f.name is Name.PACEMAKER or rng.random() < 0.6]
    names = {f.name for f in kept}
    return tuple(sorted([*kept, *(f for f in sample_findings(rng, normal=0.6) if f.name not in names)]))


def _again(anatomy: Anatomy, rng: np.random.Generator) -> Anatomy:
    """Return the same patient in a new position."""
    pose = sample_anatomy(rng)
    values = asdict(anatomy) | {name: getattr(pose, name) for name in ("rotation", "scale", "shift_x", "shift_y")}
    return Anatomy(**values)


def image_id(study: PhantomStudy, lateral: bool) -> str:
    """The DICOM id of an image in the tables, a hash of study and view."""
    digest = hashlib.sha256(f"{study.patient_id}/{study.study_id}/{study.seed}/{lateral}".encode()).hexdigest()
    return "-".join(digest[place : place + 8] for place in range(0, 40, 8))


def view_code(study: PhantomStudy, lateral: bool) -> str:
    """ViewPosition in the tables."""
    return "LATERAL" if lateral else study.view.value
