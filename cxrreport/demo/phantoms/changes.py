"""What changes between two studies of a phantom patient: side, size and presence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from typing import Any

import numpy as np

from cxrreport.demo.phantoms.findings import Name, PhantomFinding, masked, report_order, sample_details


class Change(StrEnum):
    """Change of a finding since the prior study, in the words of a report."""

    NEW = "new"
    WORSE = "increased"
    UNCHANGED = "unchanged"
    IMPROVED = "decreased"
    RESOLVED = "resolved"


COMPARED = (Name.CARDIOMEGALY, Name.OEDEMA, Name.OPACITY, Name.EFFUSION, Name.PNEUMOTHORAX)
"""Findings whose change is reported."""

_PREVALENCE = {
    Name.CARDIOMEGALY: 0.35,
    Name.OEDEMA: 0.20,
    Name.OPACITY: 0.35,
    Name.EFFUSION: 0.45,
    Name.PNEUMOTHORAX: 0.20,
    Name.TUBE: 0.15,
    Name.PACEMAKER: 0.15,
}
_NORMAL = 0.15
_POSTERIOR = 0.35
_COURSES: tuple[tuple[str, float], ...] = (("same", 0.45), ("size", 0.33), ("gone", 0.14), ("side", 0.08))
_OTHER_SIZE: dict[str, Any] = {"small": "large", "large": "small", "mild": "severe", "severe": "mild"}


def sample_pair(
    rng: np.random.Generator, *, new: float = 0.05
) -> tuple[tuple[PhantomFinding, ...], tuple[PhantomFinding, ...]]:
    """Sample the findings of a study and of its follow-up, each in the order of a report.

    No finding of one study is hidden by another, and each name occurs once, so that every change can be seen and
    belongs to one finding.

    Args:
        rng: source of randomness.
        new: probability that a finding which the first study lacks is in the second. It is low, so that a reader with
            the prior study of another patient, to whom most findings are new, is seldom right.
    """
    while True:
        first = _first(rng)
        second = _follow(first, new, rng)
        if masked(first) == first and masked(second) == second:
            return first, second


def changes(prior: tuple[PhantomFinding, ...], current: tuple[PhantomFinding, ...]) -> dict[PhantomFinding, Change]:
    """The change of each compared finding of either study; a resolved finding is that of the prior study."""
    return dict(_changes(prior, current))


def _changes(
    prior: tuple[PhantomFinding, ...], current: tuple[PhantomFinding, ...]
) -> Iterator[tuple[PhantomFinding, Change]]:
    before = {_place(f): f for f in prior if f.name in COMPARED}
    for finding in current:
        if finding.name not in COMPARED:
            continue
        earlier = before.pop(_place(finding), None)
        if earlier is None:
            yield finding, Change.NEW
        elif earlier.size == finding.size:
            yield finding, Change.UNCHANGED
        else:
            yield finding, Change.WORSE if finding.size in ("large", "severe") else Change.IMPROVED
    for finding in before.values():
        yield finding, Change.RESOLVED


def _place(finding: PhantomFinding) -> tuple[str, ...]:
    return finding.name, finding.side, finding.zone


def _first(rng: np.random.Generator) -> tuple[PhantomFinding, ...]:
    if rng.random() < _NORMAL:
        return ()
    names = [name for name, probability in _PREVALENCE.items() if rng.random() < probability]
    return tuple(sorted((_one(name, rng) for name in names), key=report_order))


def _one(name: Name, rng: np.random.Generator) -> PhantomFinding:
    if name is Name.EFFUSION and rng.random() < _POSTERIOR:
        return PhantomFinding(name, size="small", zone="posterior")
    return sample_details(name, rng)[0]


def _follow(prior: tuple[PhantomFinding, ...], new: float, rng: np.random.Generator) -> tuple[PhantomFinding, ...]:
    """Let every finding stay, change its size, disappear or change its side, and add new ones."""
    found = []
    for finding in prior:
        course = str(rng.choice([name for name, _ in _COURSES], p=[share for _, share in _COURSES]))
        if finding.name not in COMPARED:
            found += [finding] if finding.name is Name.PACEMAKER or course != "gone" else []
        elif course == "size" and finding.zone != "posterior":
            found.append(replace(finding, size=_OTHER_SIZE[finding.size]))
        elif course == "side" and finding.side:
            found.append(replace(finding, side="left" if finding.side == "right" else "right"))
        elif course != "gone":
            found.append(finding)
    absent = [name for name in _PREVALENCE if all(f.name is not name for f in prior)]
    found += [_one(name, rng) for name in absent if name in COMPARED and rng.random() < new]
    return tuple(sorted(found, key=report_order))
