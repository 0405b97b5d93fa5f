"""350 sentences of a second author, sealed until the rules were final; since read, and kept against steps back.

`docs/reports.md` has the result of their first sight.
"""

from __future__ import annotations

from prior_outcomes import DATA, rows

from cxrreport.reports.priors import mentions_prior, remove_priors

SENTENCES = rows(DATA / "prior_sentences_sealed.tsv")


def test_every_mention_is_found_and_nothing_else() -> None:
    wrong = [
        row["sentence"]
        for row in SENTENCES
        if (remove_priors(row["sentence"]).mentioned > 0) != (row["mention"] == "1")
    ]
    assert len(SENTENCES) == 350 and wrong == []


def test_no_edit_leaves_a_mention() -> None:
    assert [row["sentence"] for row in SENTENCES if mentions_prior(remove_priors(row["sentence"]).text)] == []
