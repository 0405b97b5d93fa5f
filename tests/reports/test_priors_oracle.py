"""No edit changes the polarity or certainty of a finding, as read by negspacy, which the rules do not use.

negspacy is NegEx, the algorithm that ConText extends: polarity with its own terms, certainty with those below. The two
packages of ConText itself do not fit: medspacy needs spaCy below 3.8 on Python 3.11 and with it NumPy 1, and
pyConTextNLP has no lexicon of its own and reads one from the network.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path

import negspacy.negation  # noqa: F401  (registers the component)
import pytest
import spacy
from negspacy.termsets import termset

from cxrreport.reports.priors import edit_sentence
from cxrreport.reports.priors.vocabulary import FINDING
from cxrreport.reports.sentences import sentences

DATA = Path(__file__).parent / "data"
DOUBT = {
    "pseudo_negations": [],
    "preceding_negations": [
        *(
            "possible",
            "possibly",
            "probable",
            "probably",
            "likely",
            "may represent",
            "may reflect",
            "may be",
            "could be",
        ),
        *("could represent", "might represent", "questionable", "suspicious for", "concerning for", "suggestive of"),
        *("suggesting", "suggests", "versus", "cannot exclude", "suspected", "perhaps", "presumed", "worrisome for"),
    ],
    "following_negations": [
        "is possible",
        "are possible",
        "is likely",
        "is suspected",
        "not excluded",
        "is questioned",
    ],
    "termination": ["but", "however", "although", ";"],
}
# "No significant change" denies no finding.
NO_CHANGE = re.compile(r"\b(?:no|without|little|not)(?: been)?(?: \w+){0,2} change[sd]?\b")


@cache
def reader() -> Callable[[str], list[tuple[str, bool, bool]]]:
    """A function from a text to its words, each with whether it is a denied and a doubted finding."""
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("entity_ruler").add_patterns(
        [{"label": "FINDING", "pattern": [{"LOWER": {"REGEX": FINDING.pattern}}]}]
    )
    denial = termset("en_clinical").get_patterns()
    denial = {**denial, "termination": [*denial["termination"], ";"]}
    nlp.add_pipe("negex", name="denied", config={"neg_termset": denial, "extension_name": "denied"})
    nlp.add_pipe("negex", name="doubted", config={"neg_termset": DOUBT, "extension_name": "doubted"})

    def read(text: str) -> list[tuple[str, bool, bool]]:
        document = nlp(NO_CHANGE.sub("unchanged", text.lower()))
        found = {entity.start: (entity._.denied, entity._.doubted) for entity in document.ents}
        return [(token.text, *found.get(token.i, (False, False))) for token in document]

    return read


def changed_findings(before: str, after: str) -> list[str]:
    """The words of findings that are denied or doubted in one of two texts only."""
    given, kept = reader()(before), reader()(after)
    matcher = SequenceMatcher(None, [word for word, *_ in given], [word for word, *_ in kept], autojunk=False)
    pairs = (
        (given[one + place], kept[other + place])
        for one, other, size in matcher.get_matching_blocks()
        for place in range(size)
    )
    return [old[0] for old, new in pairs if old != new]


def edits_of(texts: list[str]) -> list[tuple[str, str]]:
    edits = ((text, edit_sentence(text)) for text in texts)
    return [(text, edit) for text, edit in edits if edit]


def test_the_oracle_sees_a_changed_meaning() -> None:
    assert changed_findings("No pneumothorax.", "Pneumothorax.") == ["pneumothorax"]
    assert changed_findings("Opacity, possibly edema.", "Opacity, edema.") == ["edema"]
    assert not changed_findings("No significant change in the effusion.", "Effusion.")


def test_no_edit_of_the_corpus_changes_a_finding() -> None:
    texts = []
    for path in sorted(DATA.glob("prior_sentences*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            texts += [row["sentence"] for row in csv.DictReader(file, delimiter="\t")]
    edits = edits_of(texts)
    changed = {before: after for before, after in edits if changed_findings(before, after)}
    assert len(edits) > 250
    assert not changed


@pytest.mark.slow
def test_no_edit_of_open_i_changes_a_finding(shared: Path) -> None:
    with (shared / "openi/reports.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    texts = {sentence for row in rows for name in ("findings", "impression") for sentence in sentences(row[name])}
    edits = edits_of(sorted(texts))
    changed = {before: after for before, after in edits if changed_findings(before, after)}
    assert len(edits) > 900
    assert not changed, changed
