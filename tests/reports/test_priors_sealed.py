"""350 sentences of a second author, sealed until the rules were final; since read, and kept against steps back.

`docs/reports.md` has the result of their first sight.
"""

from __future__ import annotations

import csv
from pathlib import Path

from cxrreport.reports.priors import mentions_prior, remove_priors

DATA = Path(__file__).parent / "data" / "prior_sentences_sealed.tsv"


def rows() -> list[dict[str, str]]:
    with DATA.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_every_mention_is_found_and_nothing_else() -> None:
    wrong = [row["text"] for row in rows() if (remove_priors(row["text"]).mentioned > 0) != (row["mentions"] == "yes")]
    assert len(rows()) == 350 and wrong == []


def test_no_edit_leaves_a_mention() -> None:
    assert [row["text"] for row in rows() if mentions_prior(remove_priors(row["text"]).text)] == []
