"""Speed of the review page with many studies, in Chromium; the last line is a JSON object.

    python benchmarks/review_page.py                                   # 2,000 studies of 224 pixels
    python benchmarks/review_page.py --resolution 896 --keep out       # keep page and screenshots

Reports are of phantoms, whose graphs are known by construction, so no model runs; the images are 40 phantoms in turn.
Only the page is written, from an existing evaluation. Times in the browser are medians over `--runs` fresh pages: from
opening the file until the first rows are drawn, until the first image is shown, and until the whole file is read; from
a keystroke in the text filter to the next frame (every letter of three searches); from one study to the next, with its
image decoded.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from cxrreport.demo.phantoms.annotated import AnnotatedText
from cxrreport.demo.phantoms.drawing import draw, sample_anatomy
from cxrreport.demo.phantoms.findings import sample_findings
from cxrreport.demo.phantoms.grammar import write_report
from cxrreport.evaluation import clinical, results
from cxrreport.evaluation.metrics import Pairs
from cxrreport.evaluation.radgraph import Annotation, Entity, Level, agreement
from cxrreport.evaluation.statistics import mean
from cxrreport.records import Report, Split, Study
from cxrreport.review import read_evaluation, write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SEARCHES = ("pneumothorax", "left effusion", "s01999")
IMAGES = 40
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
KEY = """(text) => new Promise((done) => {
  const field = document.querySelector('#query');
  const begun = performance.now();
  field.value = text;
  field.dispatchEvent(new Event('input', { bubbles: true }));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun)));
})"""
STEP = """() => new Promise((done) => {
  const begun = performance.now();
  document.querySelector('#next').click();
  const image = document.querySelector('#image');
  image.decode().then(() => requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun))));
})"""


class Phantoms:
    """What the page needs of a manifest."""

    def __init__(self, reports: list[Report], resolution: int) -> None:
        rng = np.random.default_rng(0)
        self._studies = [
            Study(study_id=f"s{n:05}", patient_id=f"p{n:05}", split=Split.TEST, image_ids=(str(n),), report=report)
            for n, report in enumerate(reports)
        ]
        self._images = [
            (255 * draw(sample_anatomy(rng), sample_findings(rng), resolution, resolution, seed).grey)
            .__add__(rng.normal(0, 3, (resolution, resolution)))  # as large as JPEG as a real radiograph is
            .clip(0, 255)
            .astype(np.uint8)
            for seed in range(IMAGES)
        ]

    def studies(self) -> list[Study]:
        return self._studies

    def image(self, image_id: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return self._images[int(image_id) % IMAGES]


def graph(text: AnnotatedText) -> Annotation:
    relations: dict[int, list[tuple[str, int]]] = {}
    for one in text.relations:
        relations.setdefault(one.head, []).append((one.kind, one.tail))
    return Annotation(
        text.tokens,
        tuple(
            Entity(" ".join(text.tokens[e.start : e.end + 1]), e.label, e.start, e.end, tuple(relations.get(n, ())))
            for n, e in enumerate(text.entities)
        ),
    )


def write_evaluation(folder: Path, count: int) -> list[Report]:
    """An output folder of `evaluate`, as far as the page reads it; returns the references."""
    rng = np.random.default_rng(1)
    reports, sides = [], ({}, {}, {}, {})
    for number in range(count):
        findings = sample_findings(rng)
        # Half of the findings change: as many are omitted as are hallucinated.
        other = tuple(f for f in findings if rng.random() < 0.6) + tuple(
            f for f in sample_findings(rng) if rng.random() < 0.3 and f.name not in {one.name for one in findings}
        )
        for place, found in enumerate((findings, other)):
            written = write_report(found, rng)
            sides[place][f"s{number:05}"] = written.graph.text
            sides[place + 2][f"s{number:05}"] = graph(written.graph)
            if place == 0:
                reports.append(written.report)
    pairs = Pairs(references=sides[0], candidates=sides[1], reference_graphs=sides[2], candidate_graphs=sides[3])
    scores = [
        agreement(pairs.candidate_graphs[study], one, Level.PARTIAL, lower_case=True).f1
        for study, one in pairs.reference_graphs.items()
    ]
    measures = {"radgraph_partial": mean(scores), **clinical.METRIC(pairs)}
    values = {name: one.values for name, one in measures.items()}
    folder.mkdir()
    confidences = {study: float(-rng.exponential(0.3)) for study in pairs.references}
    results.write_studies(
        folder / "studies.parquet", list(pairs.references), {"model": pairs}, {"model": values}, confidences
    )
    results.write_entities(folder / "entities.jsonl", pairs, lower_case=True)
    clinical.write_findings(folder / "findings.parquet", {"model": clinical.compare(pairs)})
    metrics = {"radgraph_partial": {"numbers": ["radgraph_partial"]}, "clinical": {"numbers": list(measures)[1:]}}
    summary = {"conditions": {"synthetic": True, "metrics": metrics}, "systems": {}}
    (folder / "scores.json").write_text(json.dumps(summary), encoding="utf-8")
    return reports


def timed(page: Page, url: str) -> dict[str, float]:
    """Milliseconds of one fresh page."""
    begun = time.perf_counter()
    page.goto(url, wait_until="commit", timeout=300_000)
    while not page.evaluate("() => document.querySelectorAll('#rows li').length"):
        page.wait_for_timeout(5)
    page.evaluate(DRAWN)
    first = 1000 * (time.perf_counter() - begun)
    while not page.evaluate("() => document.querySelector('#image').naturalWidth"):
        page.wait_for_timeout(5)
    image = 1000 * (time.perf_counter() - begun)
    page.wait_for_load_state("load", timeout=300_000)
    whole = 1000 * (time.perf_counter() - begun)
    typed = [word[: end + 1] for word in SEARCHES for end in range(len(word))]
    keys = [page.evaluate(KEY, text) for text in typed]
    page.evaluate(KEY, "")
    steps = [page.evaluate(STEP) for _ in range(20)]
    return {
        "first_row_ms": first,
        "first_image_ms": image,
        "whole_file_ms": whole,
        "keystroke_ms": statistics.median(keys),
        "slowest_keystroke_ms": max(keys),
        "step_ms": statistics.median(steps),
        "megabytes_of_script": page.evaluate("performance.memory.usedJSHeapSize") / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--megabytes", type=float, default=150.0, help="what the images may take")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder for the page and its screenshots")
    given = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("no Chromium here (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        reports = write_evaluation(Path(temporary) / "evaluation", given.studies)
        phantoms = Phantoms(reports, given.resolution)
        begun = time.perf_counter()
        content = read_evaluation(Path(temporary) / "evaluation")
        write_page(content, phantoms, folder / "review.html", megabytes=given.megabytes)  # type: ignore[arg-type]
        written = time.perf_counter() - begun
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, "--enable-precise-memory-info"])
        url = (folder / "review.html").resolve().as_uri()
        found = []
        for _ in range(given.runs):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            found.append(timed(page, url))
            page.close()
        if given.keep:
            for name, size in (("desktop", (1440, 900)), ("small", (1024, 768)), ("phone", (390, 844))):
                page = browser.new_page(viewport={"width": size[0], "height": size[1]})
                page.goto(url)
                page.locator("#state").select_option("omitted")
                page.keyboard.press("Escape")
                page.keyboard.press("j")
                page.wait_for_timeout(500)
                page.screenshot(path=given.keep / f"{name}.png", full_page=name == "phone")
                page.close()
        browser.close()
        result = {
            "studies": given.studies,
            "resolution": given.resolution,
            "megabytes": round((folder / "review.html").stat().st_size / 1e6, 1),
            "write_s": round(written, 1),
            **{name: round(statistics.median(one[name] for one in found), 1) for name in found[0]},
        }
    for name, value in result.items():
        print(f"{name:22} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
