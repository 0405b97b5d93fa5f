"""Names, dates, numbers and places that identify a person in a report: found, and marked or replaced.

No automatic method finds all of them: `docs/data-governance.md` has the recall that was measured.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version

from cxrreport.reports.deidentify.identifiers import KINDS, Identifier, identifiers, load
from cxrreport.reports.deidentify.surrogates import MARK, Surrogates

__all__ = ["KINDS", "MARK", "Deidentified", "Identifier", "deidentify", "identifiers", "load", "method"]


@dataclass(frozen=True, slots=True)
class Deidentified:
    """A text without the identifiers that were found, and their number per kind."""

    text: str
    counts: Counter[str]


def deidentify(text: str, mode: str, *, patient_id: str = "", key: bytes = b"") -> Deidentified:
    """Mark or replace the identifiers in a text.

    Args:
        text: one section of a report.
        mode: `mark` writes `MARK`; `surrogate` another name, date or number, the same for the same patient and key.
        patient_id: whose report it is, for surrogates.
        key: of the pseudonyms, for surrogates; may be empty.

    Raises:
        MissingExtraError: presidio or Faker is not installed.
    """
    found = identifiers(text)
    surrogates = Surrogates(key, patient_id)
    pieces, end = [], 0
    for item in found:
        old = text[item.start : item.end]
        pieces += [text[end : item.start], MARK if mode == "mark" else surrogates.of(item.kind, old)]
        end = item.end
    return Deidentified("".join([*pieces, text[end:]]), Counter(item.kind for item in found))


def method() -> dict[str, str]:
    """The libraries that find identifiers, with their versions, for `ingest.json`."""
    return {name: version(name) for name in ("presidio-analyzer", "phonenumbers", "Faker")}
