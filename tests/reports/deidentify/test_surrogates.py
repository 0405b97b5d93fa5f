"""Surrogates: consistent for a patient, another for another seed, and of the form of what they replace."""

from __future__ import annotations

import re
from datetime import date, datetime

import pytest

from cxrreport.reports.deidentify import deidentify

TEXT = (
    "Dr. John Smith compared the radiographs of 02/28/2019 and March 10, 2019. MRN: A1234567, tel. (617) 555-1234. "
    "Smith was told at 16:35. Mrs. LEE of St. Mary's Hospital, 12 Oak Ave, Boston, MA 02115, wrote to "
    "j.lee@mail.example.org."
)
ORIGINAL = (
    "John",
    "Smith",
    "LEE",
    "02/28/2019",
    "March 10",
    "1234567",
    "617",
    "16:35",
    "Mary",
    "Oak",
    "Boston",
    "j.lee",
)


def surrogate(text: str, seed: str = "patient 1") -> str:
    return deidentify(text, "surrogate", seed=seed).text


def test_no_original_identifier_remains() -> None:
    result = surrogate(TEXT)
    assert not [word for word in ORIGINAL if word in result]
    assert result != TEXT and "___" not in result
    assert re.search(r"MRN: [A-Z]\d{7}, tel\. \(\d{3}\) \d{3}-\d{4}\.", result)


def test_the_same_for_the_same_patient() -> None:
    assert surrogate(TEXT) == surrogate(TEXT)
    assert surrogate(TEXT) != surrogate(TEXT, "patient 2")
    names = re.findall(r"Dr\. \w+ (\w+) compared .*?\. (\w+) was told", surrogate(TEXT))
    assert names and names[0][0] == names[0][1]
    assert re.search(r"Mrs\. [A-Z]+ of", surrogate(TEXT))


@pytest.mark.parametrize("seed", [f"patient {number}" for number in range(20)])
def test_intervals_between_dates_remain(seed: str) -> None:
    result = surrogate("Compared to 02/28/2019 and 10.03.2019.", seed)
    first, second = re.findall(r"\d\d/\d\d/\d{4}|\d\d\.\d\d\.\d{4}", result)
    moved = datetime.strptime(second, "%d.%m.%Y").date() - datetime.strptime(first, "%m/%d/%Y").date()
    assert moved == date(2019, 3, 10) - date(2019, 2, 28)


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        ("on 3/4/19.", r"on \d{1,2}/\d{1,2}/1[89]\."),
        ("on 2019-03-04.", r"on 201[89]-\d\d-\d\d\."),
        ("on Monday, June 3rd, 2019.", r"on [MTWFS]\w+day, [A-Z][a-z]+ \d{1,2}(?:st|nd|rd|th), 201[89]\."),
        ("on 3-JUN-19.", r"on \d{1,2}-[A-Z]{3}-1[89]\."),
        ("in May 2014.", r"in [A-Z][a-z]{2,8} 201[34]\."),
        ("on 31/31/2019.", r"on ___\."),
        ("A 97-year-old man", r"A 90-year-old man"),
        ("Called at 1435 hours", r"Called at (?:[01]\d|2[0-3])[0-5]\d hours"),
        ("SMITH^JOHN", r"[A-Z]+\^[A-Z]+"),
    ],
)
def test_the_form_remains(given: str, pattern: str) -> None:
    for number in range(20):
        result = surrogate(given, str(number))
        assert re.fullmatch(pattern, result), result
