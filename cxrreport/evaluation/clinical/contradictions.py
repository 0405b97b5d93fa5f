"""Contradictions inside one report, from what it states of the findings.

Meant to be believed when it speaks: what can be read in two ways is none. So a denial counts only against what has all
that the denial names ("no large effusion" says nothing of a small one, "no acute fracture" nothing of an old one), and
only against the same concept (no edema, but congestion); a doubt contradicts nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cxrreport.evaluation.clinical import vocabulary as words
from cxrreport.evaluation.clinical.chexpert import Mention, Presence
from cxrreport.evaluation.clinical.vocabulary import Finding


class Kind(StrEnum):
    """How a report contradicts itself."""

    PRESENCE = "presence"
    """It asserts and denies the same."""
    SIDE = "side"
    """FINDINGS know a finding on one side only, and IMPRESSION on the other."""
    NORMAL = "normal"
    """It calls the study normal, or without acute process, and asserts what is none."""


@dataclass(frozen=True, slots=True, order=True)
class Contradiction:
    """One of them; where the study is called normal, `finding` is what speaks against it."""

    finding: Finding
    kind: Kind


def contradictions(found: Sequence[Mention], impression: int | None = None) -> tuple[Contradiction, ...]:
    """All contradictions of one report, each finding and kind once.

    Args:
        found: its mentions.
        impression: index of the first token of IMPRESSION; None where the text is of one section.
    """
    clashes = {Contradiction(one.finding, Kind.PRESENCE) for denial in found for one in found if _denies(denial, one)}
    if impression is not None:
        clashes |= {Contradiction(finding, Kind.SIDE) for finding in _on_other_sides(found, impression)}
    normal = [one for one in found if one.finding is Finding.NO_FINDING]
    if normal:
        # "No acute process" is about what is acute; a "normal chest" has nothing at all.
        all_of_it = any(one.concept.startswith(("normal", "unremarkable", "negative")) for one in normal)
        clashes |= {Contradiction(one.finding, Kind.NORMAL) for one in found if _ill(one, all_of_it=all_of_it)}
    return tuple(sorted(clashes))


def impression_token(tokens: Sequence[str], findings: str) -> int:
    """Index of the first token behind `findings`, the text that the tokens begin with.

    Tokenisers move white space only, so characters that are none are counted.
    """
    left = sum(not character.isspace() for character in findings)
    for place, token in enumerate(tokens):
        if left <= 0:
            return place
        left -= len(token)
    return len(tokens)


def _denies(denial: Mention, claim: Mention) -> bool:
    if denial.implied:  # bones that are unremarkable may have an old fracture
        alike = not _old(claim) and denial.qualifiers & words.NARROWING <= claim.qualifiers
    else:
        alike = denial.concept == claim.concept and denial.qualifiers <= claim.qualifiers
    return (
        alike
        and denial.presence is Presence.ABSENT
        and claim.presence is Presence.PRESENT
        and denial.finding is claim.finding
        and (not denial.sides or bool(denial.sides & claim.sides))
        and denial.severity in (0, claim.severity)
    )


def _on_other_sides(found: Sequence[Mention], impression: int) -> set[Finding]:
    # Devices are many in one chest; one on the left and another on the right is no contradiction.
    sides: dict[tuple[Finding, str, bool], set[str]] = {}
    for one in found:
        if one.presence is not Presence.ABSENT and one.sides and one.finding is not Finding.SUPPORT_DEVICES:
            sides.setdefault((one.finding, one.concept, one.start >= impression), set()).update(one.sides)
    return {
        finding
        for (finding, concept, concluded), ones in sides.items()
        if not concluded and not ones & sides.get((finding, concept, True), ones)
    }


def _ill(claim: Mention, *, all_of_it: bool) -> bool:
    if claim.presence is not Presence.PRESENT or claim.finding in (Finding.NO_FINDING, Finding.SUPPORT_DEVICES):
        return False
    return all_of_it or (claim.finding in words.ACUTE and not _old(claim))


def _old(claim: Mention) -> bool:
    return any(words.OLD.match(word) for word in claim.qualifiers)
