"""Every step of the text path ends soon on repetitions of what its patterns look for.

Repetitions of parts of patterns make regular expressions slow. At 100,000 characters, the longest text that is read, a
pattern with quadratic time takes many minutes on one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cxrreport.reports.deidentify import deidentify
from cxrreport.reports.language import is_other_language
from cxrreport.reports.near_duplicates import count_near_duplicates
from cxrreport.reports.placeholders import edit_placeholders
from cxrreport.reports.plain_text import MOST_CHARACTERS, plain_text
from cxrreport.reports.priors import remove_priors
from cxrreport.reports.sections import parse_report, split_generated
from cxrreport.reports.sentences import sentences

UNITS = (
    "a", "A", " ", "\n", "\t", ".", ":", "_", "(", ")", "[", "'", "’", "é ", "漢", "9", "?", "? A", "; ", "* ",
    "-- ", "1. ", "1.", "1-", "(1", "5 ", "a ", "A ", "A:", "A. ", "A.", "a. A", "___ ", "___, ", "XXXX",
    "Dr. ", "Dr", "Smith ", "Mary ", "Mary J. ", "Jones, ", "van de ", "of ", "St. ", "St. Mary's ",
    "University of ", "1 Oak ", "Oak, ", "and ", "Re: A ", "patient ", "discussed with ", "a@", "a@a.", "www.",
    "May ", "May 1 of ", "12/", "12/12/", "12:", "12:30 p", "99 ", "mrn ", "mrn:", "call ", "phone ", "x1",
    "+1 (", "A1-", "A^", "#1", "ninety ", "FINDINGS: ", "findings ", "Findings: a ", "CHEST:\n", "IMPRESSION\n",
    "CHEST, ", "AP CHEST: ", "COMPARISON: ", "no ", "no new ", "unchanged ", "since ", "compared to ", "prior ",
    "stable, ", ", and ", ". No change since ", "&lt;", "<p ", "{\\rtf", "\\n", "\u0301",
)  # fmt: skip
STEPS: dict[str, Callable[[str], Any]] = {
    "plain text": plain_text,
    "sections": parse_report,
    "sections of generated text": split_generated,
    "placeholders": lambda text: edit_placeholders(text, "remove"),
    "sentences": sentences,
    "near duplicates": lambda text: count_near_duplicates([text], [text]),
    "mentions of prior studies": remove_priors,
    "language": is_other_language,
    "identifiers": lambda text: deidentify(text, "surrogate", seed="p"),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("characters", [3_000, pytest.param(MOST_CHARACTERS, marks=pytest.mark.slow)])
def test_repetitions(step: str, characters: int) -> None:
    for unit in UNITS:
        STEPS[step]((unit * (characters // len(unit) + 1))[:characters])
