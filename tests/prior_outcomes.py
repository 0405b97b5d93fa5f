"""Outcomes of detection and removal on labelled sentences; run it to print the table of `docs/reports.md`.

python tests/prior_outcomes.py tests/reports/data/prior_sentences_second_author.tsv
"""

from __future__ import annotations

import csv
import sys
from collections import Counter, defaultdict
from pathlib import Path

from cxrreport.reports.priors import remove_priors

DATA = Path(__file__).parent / "reports/data"


def rows(path: Path) -> list[dict[str, str]]:
    """Rows with `sentence`, `mention` (0 or 1), `construction` and `acceptable` edits."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def outcome_of(row: dict[str, str]) -> str:
    """One of kept, false mention, missed, dropped, acceptable, wrong."""
    edited = remove_priors(row["sentence"])
    if row["mention"] == "0":
        return "false mention" if edited.mentioned else "kept"
    if not edited.mentioned:
        return "missed"
    if not edited.text:
        return "dropped"
    # A single numbered item loses its number.
    listed = row["acceptable"].split(" | ")
    acceptable = [text.removeprefix(row["sentence"].split()[0] + " ") for text in listed]
    return "acceptable" if edited.text in acceptable + listed else "wrong"


def by_construction(path: Path) -> dict[str, Counter[str]]:
    """Counts of outcomes for each construction."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows(path):
        counts[row["construction"]][outcome_of(row)] += 1
    return counts


def table(counts: dict[str, Counter[str]]) -> str:
    """The counts as Markdown: precision and recall of mentions, acceptable share of edits."""
    lines = [
        "| construction | sentences | detected | flagged wrongly | acceptable edits | dropped |",
        "|---|---|---|---|---|---|",
    ]
    for name, count in [*sorted(counts.items()), ("all", sum(counts.values(), Counter()))]:
        mentions = sum(count[outcome] for outcome in ("missed", "dropped", "acceptable", "wrong"))
        plain = count["kept"] + count["false mention"]
        edits = count["acceptable"] + count["wrong"]
        cells = (
            f"{mentions - count['missed']}/{mentions}" if mentions else "",
            f"{count['false mention']}/{plain}" if plain else "",
            f"{count['acceptable']}/{edits}" if edits else "",
            f"{count['dropped']}" if mentions else "",
        )
        lines.append(f"| {name} | {count.total()} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table(by_construction(Path(sys.argv[1]))) + "\n")
