"""Identifiers are found, and medical words are not taken for them; nothing leaves the machine."""

from __future__ import annotations

import re
import socket
import sys
from collections import Counter
from pathlib import Path

import pytest

from cxrreport.errors import MissingExtraError
from cxrreport.reports.deidentify import deidentify, identifiers
from cxrreport.reports.deidentify.identifiers import _recognizers
from cxrreport.storage.tables import read_text_table

DATA = Path(__file__).parents[1] / "data"
OPENI = Path(__file__).parents[4] / "shared/data/openi/reports.csv"
SENTENCES = [line.split("\t") for line in (DATA / "identifiers.tsv").read_text().splitlines()]
NO_IDENTIFIERS = (DATA / "no_identifiers.txt").read_text().splitlines()
BESIDES = re.compile(r"\b(?:Ms|Mr|Mrs|Dr|de la|MBBS|FRCR|NP|M\.D|MD|DO|ext|y/o|year|old)\b")
"""Titles, degrees and words beside an identifier, which may stay."""
MISSED = ("Kaiser Permanente", "Memorial Sloan Kettering")
"""Hospitals whose names do not say that they are one."""


def found(text: str) -> list[str]:
    return [text[item.start : item.end] for item in identifiers(text)]


@pytest.mark.parametrize(("kind", "marked"), SENTENCES, ids=[marked[:40] for _, marked in SENTENCES])
def test_identifiers_are_found(kind: str, marked: str) -> None:
    text = re.sub(r"[\[\]]", "", marked)
    for value in re.findall(r"\[([^\]]+)\]", marked):
        start = text.index(value)
        covered = {at for item in identifiers(text) for at in range(item.start, item.end)}
        covered |= {at for match in BESIDES.finditer(text) for at in range(*match.span())}
        whole = covered.issuperset(at for at in range(start, start + len(value)) if text[at].isalnum())
        assert whole is (value not in MISSED), (kind, found(text))


@pytest.mark.parametrize("text", NO_IDENTIFIERS)
def test_medical_words_are_not_identifiers(text: str) -> None:
    assert found(text) == []


def test_a_known_name_is_found_without_context() -> None:
    assert found("Mrs. Okonjo fell. Okonjo was brought in.") == ["Okonjo", "Okonjo"]


def test_lower_case_and_capitals() -> None:
    assert found("seen by dr smith, who agrees") == ["smith"]
    assert found("DR. SMITH WAS PAGED AT 0935. NO PNEUMOTHORAX.") == ["SMITH", "0935"]
    assert found("dr. was paged") == []


def test_marked_texts_have_no_identifiers() -> None:
    """What is marked is not marked again, and placeholders of publishers are no names."""
    texts = [re.sub(r"[\[\]]", "", marked) for _, marked in SENTENCES]
    for text in [*texts, "Dr. XXXX was told at ___.", "Dr. ___ and XXXX XXXX, MD", "Comparison: XXXX, XXXX."]:
        marked = deidentify(text, "mark").text
        assert deidentify(marked, "mark").text == marked


def test_the_end_of_a_sentence_remains() -> None:
    assert deidentify("Called at 4:35 p.m. No effusion.", "mark").text == "Called at ___. No effusion."
    assert deidentify("Called at 4:35 p.m. to the team.", "mark").text == "Called at ___ to the team."


def test_counts_by_kind() -> None:
    text = "Dr. Smith saw 91-year-old Mr. Jones of Mercy Hospital on 2/3/2020; call 617-555-0112."
    kinds = {"name": 2, "age": 1, "hospital": 1, "date": 1, "phone": 1}
    assert deidentify(text, "mark").counts == Counter(kinds)


def test_nothing_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert found("Write to a.jones@mail.example.org or see http://intern.example.org/x.")


@pytest.mark.parametrize("library", ["presidio_analyzer", "faker"])
def test_without_the_extra(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _recognizers.cache_clear()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=r"cxrreport\[deidentify\]"):
        identifiers("The lungs are clear.")
    monkeypatch.undo()
    _recognizers.cache_clear()


@pytest.mark.skipif(not OPENI.is_file(), reason="no Open-i reports beside the project")
def test_almost_nothing_is_found_in_reports_of_open_i() -> None:
    """They have been de-identified; one time of day (`XXXX p.m.`) is left."""
    rows = read_text_table(OPENI)[::4]
    texts = [row[name] for row in rows for name in ("indication", "comparison", "findings", "impression") if row[name]]
    assert sum(len(identifiers(text)) for text in texts) <= 2
