"""Recall and false alarms of `texts.deidentify`; the last line is JSON.

    python benchmarks/deidentify.py    # about 10 seconds
    python benchmarks/deidentify.py --reports ../shared/data/openi/reports.csv

1,000 identifiers of twelve kinds are planted into reports (`planted_identifiers.py`). Names, places, spellings and the
sentences around them are divided into two halves. The rules were written with the misses of `tuning`. An identifier is
found if every letter and digit of it is covered.

False alarms are what is found in texts that have no identifier: sentences with eponyms, devices, levels, measurements
and abbreviations, and with `--reports` a table of reports that its publisher has de-identified.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

from planted_identifiers import Half, planted

from cxrreport.records import REPORT_SECTIONS
from cxrreport.reports.deidentify import identifiers, libraries
from cxrreport.storage.tables import read_text_table

MEDICAL = Path(__file__).parents[1] / "tests/reports/data/no_identifiers.txt"


def recall(half: Half, count: int) -> tuple[dict[str, str], float, float]:
    """Found of all per kind, the share, and seconds per report."""
    found: Counter[str] = Counter()
    everything: Counter[str] = Counter()
    reports = planted(half, count)
    started = time.perf_counter()
    for report in reports:
        covered = {at for item in identifiers(report.text) for at in range(item.start, item.end)}
        letters = [at for at in range(report.start, report.end) if report.text[at].isalnum()]
        everything[report.kind] += 1
        found[report.kind] += covered.issuperset(letters)
    seconds = (time.perf_counter() - started) / count
    return {kind: f"{found[kind]}/{everything[kind]}" for kind in everything}, found.total() / count, seconds


def false_alarms(texts: list[str]) -> Counter[str]:
    """What is found in texts without identifiers, by kind."""
    return Counter(item.kind for text in texts for item in identifiers(text))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identifiers", type=int, default=1000)
    parser.add_argument("--reports", type=Path, help="table of reports without identifiers")
    arguments = parser.parse_args()
    result: dict[str, object] = dict(libraries())
    halves: tuple[Half, ...] = ("tuning", "held-out")
    for half in halves:
        kinds, share, seconds = recall(half, arguments.identifiers)
        print(half, kinds, flush=True)
        result[f"recall_{half}"] = round(share, 4)
    result["milliseconds"] = round(1000 * seconds, 2)
    medical = MEDICAL.read_text().splitlines()
    result["medical_sentences"], result["false_alarms"] = len(medical), false_alarms(medical)
    if arguments.reports:
        rows = read_text_table(arguments.reports)
        texts = [row[section] for row in rows for section in REPORT_SECTIONS if row.get(section)]
        result["sections"], result["found_in_sections"] = len(texts), false_alarms(texts)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
