"""What many reports state, as arrays: 42 bytes a report, where the objects of one take some thousand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrreport.evaluation.clinical.chexpert import Presence, Reading
from cxrreport.evaluation.clinical.vocabulary import Finding
from cxrreport.evaluation.statistics import Floats, Measure, f1_of_counts

Codes = NDArray[np.uint8]
PRESENCES = ("", *Presence)
"""Presence by its code; the first one is not stated."""
SIDES = ("left", "right")
"""A side is the bit of its place."""
_PRESENT, _UNCERTAIN, _ABSENT = map(PRESENCES.index, (Presence.PRESENT, Presence.UNCERTAIN, Presence.ABSENT))
_FIELDS = 3
_BITS = np.array([number.bit_count() for number in range(256)], np.float64)


@dataclass(frozen=True, slots=True)
class Statements:
    """The statements of reports, uint8[reports, findings] each with the findings in the order of `Finding`.

    Args:
        presence: index into `PRESENCES`.
        sides: bits of `SIDES`.
        severity: 1 for mild to 3 for severe, 0 if not stated.
    """

    presence: Codes
    sides: Codes
    severity: Codes

    @classmethod
    def of(cls, readings: Iterable[Reading]) -> Statements:
        """The statements of some reports."""
        return cls.unpacked(map(packed_reading, readings))

    @classmethod
    def unpacked(cls, rows: Iterable[bytes]) -> Statements:
        """The statements of some reports, packed each by `packed_reading`."""
        codes = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, _FIELDS, len(Finding))
        return cls(*np.moveaxis(codes, 1, 0))

    def rows(self, chosen: Sequence[int] | NDArray[np.int64]) -> Statements:
        """The statements of chosen reports."""
        return Statements(self.presence[chosen], self.sides[chosen], self.severity[chosen])

    @property
    def positive(self) -> NDArray[np.bool_]:
        """bool[reports, findings]: stated as present or uncertain."""
        positive: NDArray[np.bool_] = (self.presence == _PRESENT) | (self.presence == _UNCERTAIN)
        return positive

    @property
    def absent(self) -> NDArray[np.bool_]:
        """bool[reports, findings]: stated as absent."""
        absent: NDArray[np.bool_] = self.presence == _ABSENT
        return absent


def packed_reading(reading: Reading) -> bytes:
    """One row of every array of `Statements`."""
    codes = bytearray(_FIELDS * len(Finding))
    for place, finding in enumerate(Finding):
        if (stated := reading.get(finding)) is not None:
            fields = PRESENCES.index(stated.presence), bits(stated.sides, SIDES), stated.severity
            for row, code in enumerate(fields):
                codes[row * len(Finding) + place] = code
    return bytes(codes)


def bits(names: Iterable[str], known: Sequence[str]) -> int:
    """Names as bits of their places among the known ones."""
    return sum(1 << known.index(name) for name in names)


def common_bits(reference: Codes, candidate: Codes) -> Floats:
    """Numbers of bits, float64[reports, 3]: on both sides, only in the candidate, only in the reference.

    Args:
        reference: uint8[reports, findings].
        candidate: the same for the candidates.
    """
    sides = reference & candidate, candidate & ~reference, reference & ~candidate
    return np.stack([_BITS[one].sum(axis=1) for one in sides], axis=1)


def micro_f1(reference: Codes, candidate: Codes) -> Measure:
    """Micro F1 of the bits of all findings; a report without any on both sides counts as agreed."""
    terms = common_bits(reference, candidate)
    # F1 is undefined for a study without a bit on either side, which is correct.
    return Measure(terms, f1_of_counts, np.nan_to_num(f1_of_counts(terms), nan=1.0))
