"""Names, dates, numbers and places that identify a person in a report: found, and marked or replaced.

No automatic method finds all of them: `docs/data-governance.md` has the recall that was measured.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version

from cxrreport.reports.deidentify.identifiers import KINDS, Identifier, identifiers, load
from cxrreport.reports.deidentify.surrogates import MARK, Surrogates

__all__ = ["KINDS", "MARK", "Deidentified", "Identifier", "deidentify", "identifiers", "libraries"]


@dataclass(frozen=True, slots=True)
class Deidentified:
    """A text without the identifiers that were found, and their number per kind."""

    text: str
    counts: Counter[str]


def deidentify(text: str, mode: str, *, seed: str = "") -> Deidentified:
    """Mark or replace the identifiers in a text.

    Args:
        text: one section of a report.
        mode: `mark` writes `MARK`; `surrogate` another name, date or number, the same for the same seed.
        seed: of the patient. Whoever knows it can test guesses, so it should come from a secret key.

    Raises:
        MissingExtraError: presidio or Faker is not installed.
    """
    found = identifiers(text)
    surrogates = Surrogates(seed)
    pieces, end = [], 0
    for item in found:
        old = text[item.start : item.end]
        new = MARK if mode == "mark" else surrogates.of(item.kind, old)
        pieces += [text[end : item.start], new]
        end = item.end
        following = text[end : end + 2].strip()
        if old.endswith(".") and not new.endswith(".") and (not following or following[0].isupper()):
            pieces.append(".")  # of an abbreviation and of the sentence
    return Deidentified("".join([*pieces, text[end:]]), Counter(item.kind for item in found))


def libraries() -> dict[str, str]:
    """The libraries that find identifiers, with their versions.

    Raises:
        MissingExtraError: presidio or Faker is not installed.
    """
    load()
    return {name: version(name) for name in ("presidio-analyzer", "phonenumbers", "Faker")}
