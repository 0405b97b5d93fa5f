"""Mentions of prior studies in sentences by construction: detection, and the truth of every edit."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cxrreport.reports.priors import edit_sentence, mentions_prior, passes, remove_priors

DATA = Path(__file__).parent / "data"
SENTENCES = DATA / "prior_sentences.tsv"
LIMITS = {"tuning": (0.02, 0.01, 0.005), "untouched": (0.02, 0.03, 0.005)}
"""Share of mentions missed, of edits outside the acceptable ones, and of sentences edited without a mention."""


@dataclass
class Outcomes:
    counts: Counter[str] = field(default_factory=Counter)
    by_construction: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, construction: str, outcome: str) -> None:
        self.counts[outcome] += 1
        self.by_construction[construction][outcome] += 1


def half_of(sentence: str) -> str:
    return "untouched" if hashlib.sha256(sentence.encode()).digest()[0] % 2 else "tuning"


def rows(path: Path = SENTENCES) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def outcome_of(row: dict[str, str]) -> str:
    edited = remove_priors(row["sentence"])
    if row["mention"] == "0":
        return "false mention" if edited.mentioned else "kept"
    if not edited.mentioned:
        return "missed"
    if not edited.text:
        return "dropped"
    # A single numbered item loses its number.
    acceptable = [text.removeprefix(row["sentence"].split()[0] + " ") for text in row["acceptable"].split(" | ")]
    return "acceptable" if edited.text in acceptable + row["acceptable"].split(" | ") else "wrong"


@pytest.mark.parametrize("half", ["tuning", "untouched"])
def test_outcomes_by_construction(half: str) -> None:
    found = Outcomes()
    for row in rows():
        if half_of(row["sentence"]) == half:
            found.add(row["construction"], outcome_of(row))
    counts = found.counts
    mentions = sum(counts[name] for name in ("missed", "dropped", "acceptable", "wrong"))
    edits = counts["acceptable"] + counts["wrong"]
    missed, wrong, false = LIMITS[half]
    report = "\n".join(f"{name}: {dict(each)}" for name, each in sorted(found.by_construction.items()))
    assert mentions > 200 and edits > 100, report
    assert counts["missed"] <= missed * mentions, report
    assert counts["wrong"] <= wrong * edits, report
    assert counts["false mention"] <= false * sum(counts.values()), report


@pytest.mark.parametrize("name", ["fresh", "last"])
def test_outcomes_of_later_sentences(name: str) -> None:
    outcomes = Counter(outcome_of(row) for row in rows(DATA / f"prior_sentences_{name}.tsv"))
    assert outcomes["missed"] <= 2 and outcomes["wrong"] <= 2 and not outcomes["false mention"], outcomes


def test_no_edit_leaves_a_mention() -> None:
    for row in rows():
        edited = edit_sentence(row["sentence"])
        assert edited is None or not mentions_prior(edited), row["sentence"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("No new effusion", "No effusion"),
        ("No large pneumothorax has developed", "No large pneumothorax"),
        ("Rib fractures with no significant change in displacement", "Rib fractures with displacement"),
        ("Previously seen large right effusion is now small", "Large right effusion is small"),
        ("Effusion is likely unchanged", "Effusion"),
        ("Pneumothorax has resolved", "Pneumothorax"),
        ("Stable right effusion", "Effusion"),
        ("Stable effusion", "Large effusion"),
        ("Stable effusion and edema", "Edema and effusion"),
        (
            "There is an unchanged and standard appearance of the leads",
            "There is an and standard appearance of the leads",
        ),
        ("Nodules that show no change are seen", "Nodules that show are seen"),
        ("Effusion is unchanged and", "Effusion and"),
        ("Mild cardiomegaly, stable mediastinal contours", "Mild cardiomegaly, mediastinal contours"),
    ],
)
def test_a_guard_rejects_a_false_or_broken_edit(before: str, after: str) -> None:
    assert not passes(before, after)


def test_a_guard_accepts_a_true_edit() -> None:
    assert passes("Stable moderate cardiomegaly", "Moderate cardiomegaly")
    assert passes("No pneumothorax, unchanged", "No pneumothorax")
    assert passes("The lungs are clear without new consolidation", "The lungs are clear")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Stable bibasilar atelectasis or scarring.", "Unchanged bibasilar atelectasis or scarring."),
        ("Again seen is a hiatal hernia.", "Re-demonstrated is a hiatal hernia."),
        ("Again seen are rib fractures.", "Redemonstrated are rib fractures."),
    ],
)
def test_synonyms_are_edited_alike(first: str, second: str) -> None:
    assert edit_sentence(first) == edit_sentence(second) is not None


@pytest.mark.parametrize(
    "piece",
    ["stable ", "no ", "very ", "compared to the ", "since ", "unchanged, ", "is very ", "the prior ", "for ", "___ "],
)
@pytest.mark.parametrize("function", [mentions_prior, edit_sentence])
def test_a_sentence_of_100_000_characters_is_read_in_windows(piece: str, function: Callable[[str], object]) -> None:
    """Quadratic patterns would take hours."""
    function(piece * (100_000 // len(piece)) + ".")


@pytest.mark.parametrize("piece", ["Dr. ", "1. ", "no. ", "Stable effusion. "])
def test_a_section_of_200_000_characters_is_split_in_linear_time(piece: str) -> None:
    assert remove_priors(piece * (200_000 // len(piece))).sentences
