"""Reports per second of the preparation of texts in `ingest`, in one process and in two; the last line is JSON.

    python benchmarks/reports.py                     # about three minutes
    python benchmarks/reports.py --reports 228000    # as many as MIMIC-CXR has

The reports are generated in the style of MIMIC-CXR, from sentences with random words: 4 to 9 sentences of findings and
1 to 3 of impression, a third of them with a mention of a prior study. Two fifths of the sentences of 5,000 reports are
different, as in Open-i (8,072 of 19,522). One and two processes alternate, and every round has other reports: studies
without images go through the map of `ingest` to `read_study`, which splits their reports into sections and removes the
mentions. The start of worker processes is included. `reports_per_second` and `two_workers` are medians over the rounds;
`minutes_for_228000` follows from `two_workers`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from functools import partial
from pathlib import Path

from cxrreport.ingestion.study import StudyTask, read_study
from cxrreport.ingestion.study_plan import StudyPlan
from cxrreport.ingestion.workers import ordered_map
from cxrreport.records import Split
from cxrreport.settings import IngestSettings

SIDES = ("left", "right", "left lower", "right upper", "bilateral", "retrocardiac", "bibasilar")
FINDINGS = ("effusion", "atelectasis", "consolidation", "opacity", "pneumothorax", "pleural thickening", "nodule")
SIZES = ("small", "moderate", "large", "mild", "subtle", "dense")
PLAIN = (
    "There is a {size} {side} {finding}.",
    "No {finding} or {other} is seen.",
    "The cardiac silhouette is {size}ly enlarged, and the mediastinal contours are within normal limits.",
    "{size} {side} {finding} may represent {other}, for which clinical correlation is advised.",
)
PRIOR = (
    "Compared to the prior radiograph of ___, the {side} {finding} has increased.",
    "Unchanged {size} {side} {finding}.",
    "The {side} {finding} seen previously has resolved, but a {size} {other} persists.",
    "Again seen is a {size} {side} {finding}, with no significant interval change.",
    "Interval removal of the endotracheal tube; {size} {side} {finding}.",
)
REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ with cough.

 COMPARISON:  ___.

 FINDINGS:

 {findings}

 IMPRESSION:

 {impression}
"""


def section(random_: random.Random, sentences: int) -> str:
    """Write a section."""
    texts = []
    for _ in range(sentences):
        pattern = random_.choice(PRIOR if random_.random() < 1 / 3 else PLAIN)
        finding, other = random_.sample(FINDINGS, 2)
        text = pattern.format(size=random_.choice(SIZES), side=random_.choice(SIDES), finding=finding, other=other)
        if random_.random() < 1 / 3:
            text = f"{text[:-1]}, measuring {random_.randint(3, 60)} x {random_.randint(3, 60)} mm."
        texts.append(text[0].upper() + text[1:])
    return " ".join(texts)


def tasks_of(reports: int, seed: int = 0) -> list[StudyTask]:
    """Studies without images, each with a report."""
    random_ = random.Random(seed)
    return [
        StudyTask(
            StudyPlan(
                study_id=f"s{index}",
                patient_id=f"p{index}",
                split=Split.TRAIN,
                report=REPORT.format(
                    findings=section(random_, random_.randint(4, 9)), impression=section(random_, random_.randint(1, 3))
                ),
                candidates=(),
                only_first=False,
            )
        )
        for index in range(reports)
    ]


def rate(tasks: list[StudyTask], workers: int) -> float:
    """Reports per second, start of the processes included."""
    settings = IngestSettings(input=Path(), output=Path("unused"), priors="training", workers=workers)
    read = partial(read_study, settings=settings)
    started = time.perf_counter()
    mentioned = sum(result.texts["mentioned"] for result in ordered_map(read, tasks, workers=workers, when_killed=read))
    seconds = time.perf_counter() - started
    if not mentioned:
        raise SystemExit("no mentions were found")
    return len(tasks) / seconds


def main() -> None:
    """Measure both sides in turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rates: dict[int, list[float]] = {1: [], 2: []}
    for number in range(arguments.rounds):
        tasks = tasks_of(arguments.reports, seed=number)
        for workers, values in rates.items():
            values.append(rate(tasks, workers))
        print(
            f"round {number + 1}: {rates[1][-1]:.0f} per second in one process, {rates[2][-1]:.0f} in two", flush=True
        )
    one, two = (statistics.median(values) for values in rates.values())
    print(
        json.dumps(
            {
                "reports_per_second": round(one, 1),
                "two_workers": round(two, 1),
                "minutes_for_228000": round(228_000 / two / 60, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
