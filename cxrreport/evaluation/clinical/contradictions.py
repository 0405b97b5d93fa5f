"""Contradictions within one report, from its statements on findings.

The rules prefer precision: a statement that can be read in two ways is not a contradiction. A denial contradicts only
an assertion of the same concept ("no edema" does not deny congestion) with all qualifiers of the denial ("no large
effusion" does not concern a small one, "no acute fracture" an old one). Uncertain statements contradict nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cxrreport.evaluation.clinical import vocabulary
from cxrreport.evaluation.clinical.chexpert import Mention, Presence
from cxrreport.evaluation.clinical.vocabulary import Finding


class Kind(StrEnum):
    """How a report contradicts itself."""

    PRESENCE = "presence"
    """It asserts and denies the same finding."""
    SIDE = "side"
    """FINDINGS has a finding on one side only, and IMPRESSION on the other."""
    NORMAL = "normal"
    """It calls the study normal, or without acute process, and asserts a finding that is not."""


@dataclass(frozen=True, slots=True, order=True)
class Contradiction:
    """One contradiction; of kind `NORMAL`, `finding` is the finding that contradicts the normal study."""

    finding: Finding
    kind: Kind


def contradictions(found: Sequence[Mention], impression: int | None = None) -> tuple[Contradiction, ...]:
    """Find the contradictions of one report, each finding and kind once.

    Args:
        found: mentions of the report.
        impression: index of the first token of IMPRESSION; `None` for a text of one section.
    """
    clashes = {Contradiction(one.finding, Kind.PRESENCE) for denial in found for one in found if _denies(denial, one)}
    if impression is not None:
        clashes |= {Contradiction(finding, Kind.SIDE) for finding in _on_other_sides(found, impression)}
    normal = [one for one in found if one.finding is Finding.NO_FINDING]
    if normal:
        # "No acute process" concerns acute findings only; a "normal chest" has no finding at all.
        any_finding = any(one.concept.startswith(("normal", "unremarkable", "negative")) for one in normal)
        clashes |= {
            Contradiction(one.finding, Kind.NORMAL) for one in found if _not_normal(one, any_finding=any_finding)
        }
    return tuple(sorted(clashes))


def impression_token(tokens: Sequence[str], findings: str) -> int:
    """Index of the first token after `findings`, the text with which the tokens begin.

    Tokenisers change white space only, so all other characters are counted.
    """
    left = sum(not character.isspace() for character in findings)
    for place, token in enumerate(tokens):
        if left <= 0:
            return place
        left -= len(token)
    return len(tokens)


def _denies(denial: Mention, claim: Mention) -> bool:
    if denial.implied:  # unremarkable bones may have an old fracture
        covered = not _old(claim) and denial.qualifiers & vocabulary.NARROWING <= claim.qualifiers
    else:
        covered = denial.concept == claim.concept and denial.qualifiers <= claim.qualifiers
    return (
        covered
        and denial.presence is Presence.ABSENT
        and claim.presence is Presence.PRESENT
        and denial.finding is claim.finding
        and (not denial.sides or bool(denial.sides & claim.sides))
        and denial.severity in (0, claim.severity)
    )


def _on_other_sides(found: Sequence[Mention], impression: int) -> set[Finding]:
    # One chest may have several devices, on the left and on the right.
    sides: dict[tuple[Finding, str, bool], set[str]] = {}
    for one in found:
        if one.presence is not Presence.ABSENT and one.sides and one.finding is not Finding.SUPPORT_DEVICES:
            sides.setdefault((one.finding, one.concept, one.start >= impression), set()).update(one.sides)
    return {
        finding
        for (finding, concept, concluded), ones in sides.items()
        if not concluded and not ones & sides.get((finding, concept, True), ones)
    }


def _not_normal(claim: Mention, *, any_finding: bool) -> bool:
    if claim.presence is not Presence.PRESENT or claim.finding in (Finding.NO_FINDING, Finding.SUPPORT_DEVICES):
        return False
    return any_finding or (claim.finding in vocabulary.ACUTE and not _old(claim))


def _old(claim: Mention) -> bool:
    return any(vocabulary.OLD.match(word) for word in claim.qualifiers)
