"""The findings of phantoms and their prevalence: the ground truth of every phantom study."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import numpy as np

Side = Literal["left", "right", ""]
Zone = Literal["upper", "lower", "posterior", ""]
Size = Literal["small", "large", "mild", "severe", ""]


class Name(StrEnum):
    """Names of findings, in the order of a report."""

    CARDIOMEGALY = "cardiomegaly"
    OEDEMA = "oedema"
    OPACITY = "opacity"
    NODULE = "nodule"
    EFFUSION = "effusion"
    PNEUMOTHORAX = "pneumothorax"
    TUBE = "tube"
    PACEMAKER = "pacemaker"


@dataclass(frozen=True, slots=True, order=True)
class PhantomFinding:
    """One finding. `side` is the patient's: the patient's left is on the right of the image.

    Args:
        size: `small` or `large` for an extent, `mild` or `severe` for a degree, empty for findings without either.
        zone: `posterior` for an effusion behind the diaphragm, which only a lateral view shows and which has no side.
        doubtful: the finding is faint, and the report calls it possible.
    """

    name: Name
    side: Side = ""
    size: Size = ""
    zone: Zone = ""
    doubtful: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """Name, side and size, which `finding_f1` compares."""
        return (self.name.value, self.side, self.size)


# Probability of each finding in an abnormal study. Sampling repeats until at least one finding is present.
_PREVALENCE = {
    Name.CARDIOMEGALY: 0.40,
    Name.OEDEMA: 0.20,
    Name.OPACITY: 0.45,
    Name.NODULE: 0.10,
    Name.EFFUSION: 0.45,
    Name.PNEUMOTHORAX: 0.25,
    Name.TUBE: 0.22,
    Name.PACEMAKER: 0.22,
}
_BILATERAL = 0.2
_DOUBTFUL = 0.25
_LEFT_PACEMAKER = 0.6
_SIDES: tuple[Side, Side] = ("left", "right")
_DEGREES, _EXTENTS, _ZONES = ("mild", "severe"), ("small", "large"), ("upper", "lower")
_DETAILS = {
    Name.CARDIOMEGALY: {"size": _DEGREES},
    Name.OEDEMA: {"size": _DEGREES},
    Name.OPACITY: {"side": _SIDES, "size": _EXTENTS, "zone": _ZONES},
    Name.NODULE: {"side": _SIDES, "zone": _ZONES},
    Name.PNEUMOTHORAX: {"side": _SIDES, "size": _EXTENTS},
}


def sample_findings(rng: np.random.Generator, *, normal: float = 0.4) -> tuple[PhantomFinding, ...]:
    """Sample the findings of one study, in the order of a report.

    Args:
        rng: source of randomness.
        normal: probability of a study without findings.
    """
    if rng.random() < normal:
        return ()
    while True:
        # A list, because the order of a set of strings, and so of the draws below, differs between processes.
        present = [name for name, probability in _PREVALENCE.items() if rng.random() < probability]
        if present:
            return tuple(sorted((f for name in present for f in sample_details(name, rng)), key=report_order))


def report_order(finding: PhantomFinding) -> tuple[int, str]:
    """Sort key: the order of `Name`, then left before right."""
    return (list(Name).index(finding.name), finding.side)


def sample_details(name: Name, rng: np.random.Generator) -> list[PhantomFinding]:
    """Sample the details of a finding; an effusion may be on both sides."""

    def pick(options: tuple[str, ...]) -> Any:
        return str(rng.choice(options))

    if name is Name.PACEMAKER:
        return [PhantomFinding(name, side="left" if rng.random() < _LEFT_PACEMAKER else "right")]
    if name is Name.EFFUSION:
        sides = _SIDES if rng.random() < _BILATERAL else (pick(_SIDES),)
        return [PhantomFinding(name, side=side, size=pick(_EXTENTS)) for side in sides]
    details = {detail: pick(options) for detail, options in _DETAILS.get(name, {}).items()}
    doubtful = name is Name.OPACITY and bool(rng.random() < _DOUBTFUL)
    return [PhantomFinding(name, doubtful=doubtful, **details)]


def masked(findings: tuple[PhantomFinding, ...]) -> tuple[PhantomFinding, ...]:
    """Remove opacities and nodules that a large effusion or a collapsed lung hides."""
    hidden = {
        (f.side, zone)
        for f in findings
        if f.size == "large" and f.name in (Name.EFFUSION, Name.PNEUMOTHORAX)
        for zone in (("lower",) if f.name is Name.EFFUSION else ("upper", "lower"))
    }
    kept = (f for f in findings if f.name not in (Name.OPACITY, Name.NODULE) or (f.side, f.zone) not in hidden)
    return tuple(kept)
