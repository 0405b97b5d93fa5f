"""Mentions of prior studies in sentences by construction: detection, and the truth of every edit."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable

import pytest
from prior_outcomes import DATA, by_construction, outcome_of, rows

from cxrreport.reports.priors import edit_sentence, mentions_prior, passes, remove_priors
from cxrreport.reports.priors.detection import mentions
from cxrreport.reports.priors.detection.context import without_context
from cxrreport.reports.priors.detection.triggers import may_mention
from cxrreport.reports.priors.spelling import with_correct_changes

SENTENCES = DATA / "prior_sentences.tsv"
LIMITS = {"tuning": (0.02, 0.01, 0.005), "untouched": (0.02, 0.03, 0.005)}
"""Share of mentions missed, of edits outside the acceptable ones, and of sentences edited without a mention."""


def half_of(sentence: str) -> str:
    return "untouched" if hashlib.sha256(sentence.encode()).digest()[0] % 2 else "tuning"


@pytest.mark.parametrize("half", ["tuning", "untouched"])
def test_outcomes_by_construction(half: str) -> None:
    counts = Counter(outcome_of(row) for row in rows(SENTENCES) if half_of(row["sentence"]) == half)
    mentions = sum(counts[name] for name in ("missed", "dropped", "acceptable", "wrong"))
    edits = counts["acceptable"] + counts["wrong"]
    missed, wrong, false = LIMITS[half]
    assert mentions > 200 and edits > 100, counts
    assert counts["missed"] <= missed * mentions, counts
    assert counts["wrong"] <= wrong * edits, counts
    assert counts["false mention"] <= false * counts.total(), counts


@pytest.mark.parametrize(
    ("name", "outcomes"),
    [
        ("fresh", (0, 0, 0)),
        ("last", (0, 0, 0)),
        ("second_author", (0, 0, 0)),
        ("other_words", (0, 0, 1)),
        ("third_author_first", (0, 0, 2)),
        ("third_author_second", (0, 0, 2)),
        ("third_author_final", (3, 1, 2)),  # as at first sight
        ("fourth_author", (2, 0, 0)),  # as at first sight
    ],
)
def test_outcomes_of_later_sentences(name: str, outcomes: tuple[int, int, int]) -> None:
    """At most so many mentions are missed, edits wrong and sentences flagged.

    Flagged are the extubated patient, "residual", and that no prior study is at hand, read otherwise by their authors.
    """
    found = by_construction(DATA / f"prior_sentences_{name}.tsv")
    counts = sum(found.values(), Counter[str]())
    counted = (counts["missed"], counts["wrong"], counts["false mention"])
    assert all(count <= limit for count, limit in zip(counted, outcomes, strict=True)), found


def test_the_quick_test_of_words_misses_no_mention(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = [row["sentence"] for path in DATA.glob("prior_sentences*.tsv") for row in rows(path)]
    quick = [mentions_prior(sentence) for sentence in sentences]
    monkeypatch.setattr("cxrreport.reports.priors.detection.mentions.may_mention", lambda text: True)
    mentions._mentions_prior.cache_clear()
    assert quick == [mentions_prior(sentence) for sentence in sentences]
    mentions._mentions_prior.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize(
    "frame", ["{} left effusion.", "The effusion is {}.", "No {} of effusion.", "The {} film shows it."]
)
def test_the_quick_test_has_the_words_of_all_patterns(frame: str) -> None:
    plain = " ".join(pattern.pattern for pattern in mentions._COMPILED)
    plain = re.sub(r"\\[bswWdS]", " ", plain)
    for word in {*re.findall(r"[a-z]{3,}", plain), *(found[:-1] for found in re.findall(r"[a-z]{4,}(?=\?)", plain))}:
        sentence = frame.format(word)
        if not may_mention(sentence):
            assert not any(pattern.search(without_context(sentence)) for pattern in mentions._COMPILED), sentence


@pytest.mark.parametrize(
    "word", ["unchaged", "PERSISTANT", "Worsning", "intervl", "progresive", "previosly", "compard", "resolvd"]
)
def test_a_misspelled_change_is_a_mention(word: str) -> None:
    assert mentions_prior(f"{word} left effusion.")


@pytest.mark.parametrize("word", ["Internal", "Regression", "Revolution", "Compare", "Consistent", "Deceased"])
def test_a_correct_word_close_to_a_word_of_change_is_kept(word: str) -> None:
    assert with_correct_changes(word) == word


def test_no_edit_leaves_a_mention() -> None:
    for row in rows(SENTENCES):
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
    [
        *(
            "stable ",
            "no ",
            "very ",
            "compared to the ",
            "since ",
            "unchanged, ",
            "is very ",
            "the prior ",
            "for ",
            "___ ",
        ),
        *(
            "has not ",
            "more ",
            "was and ",
            "tube ",
            "a 1/",
            "from 1 to ",
            "should be ",
            "smaller than ",
            "if no ",
            "old ",
        ),
    ],
)
@pytest.mark.parametrize("function", [mentions_prior, edit_sentence])
def test_a_long_sentence_is_read_in_windows(piece: str, function: Callable[[str], object]) -> None:
    """Quadratic patterns would take hours."""
    function(piece * (20_000 // len(piece)) + ".")


@pytest.mark.parametrize("piece", ["Dr. ", "1. ", "no. ", "Stable effusion. "])
def test_a_section_of_200_000_characters_is_split_in_linear_time(piece: str) -> None:
    assert remove_priors(piece * (200_000 // len(piece))).sentences
