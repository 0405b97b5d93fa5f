from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrreport.errors import ManifestError
from cxrreport.records import Report, Split, Study
from cxrreport.review import read_evaluation, write_page
from cxrreport.review.content import Content

HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'> no effusion {{ 7 * 7 }}"


class Images:
    """What the page needs of a manifest: studies and their images, drawn here."""

    def __init__(self, studies: list[Study]) -> None:
        self._studies = studies

    def studies(self) -> list[Study]:
        return self._studies

    def image(self, image_id: str) -> np.ndarray:
        if image_id == "broken":
            raise ManifestError("image broken: not in the image store; ingest again")
        rows, columns = np.mgrid[0:224, 0:224] / 223.0
        lungs = sum(np.exp(-(((columns - x) / 0.17) ** 2 + ((rows - 0.5) / 0.3) ** 2)) for x in (0.28, 0.72))
        noise = np.random.default_rng(len(image_id)).normal(0, 4, rows.shape)
        return np.clip(190 - 150 * lungs + 30 * rows + noise, 0, 255).astype(np.uint8)


def side(text: str, *entities: tuple[int, int, str]) -> dict[str, object]:
    tokens = text.replace(".", " .").replace(":", " :").split()
    return {
        "tokens": tokens,
        "entities": [
            {
                "tokens": " ".join(tokens[start : end + 1]),
                "label": "Observation::definitely present",
                "start": start,
                "end": end,
                "status": status,
            }
            for start, end, status in entities
        ],
    }


def said(study_id: str, system: str, finding: str, reference: str, candidate: str, **more: str) -> dict[str, str]:
    """A row of findings.parquet; each side as `presence side severity`, as far as it is stated."""
    row = {"study_id": study_id, "system": system, "finding": finding, "error": "", "contradiction": ""} | more
    for name, text in (("reference", reference), ("candidate", candidate)):
        parts = [*text.split(), "", "", ""]
        row |= {name: parts[0], f"{name}_side": parts[1], f"{name}_severity": parts[2]}
    return row


FINDINGS = [
    said("s100", "model", "Cardiomegaly", "present", "present"),
    said("s100", "model", "Fracture", "absent", "absent"),
    said("s100", "model", "No Finding", "absent", "absent"),
    said("s200", "model", "Pneumothorax", "absent", "present left", error="hallucinated", contradiction="presence"),
    said("s200", "model", "Pleural Effusion", "present left mild", "present right mild"),
    said("s200", "shuffled", "Edema", "present", "", error="omitted"),
    said("=s400", "model", "Lung Opacity", "uncertain left+right", "", error="omitted"),
]

CASES = {
    # study id: score, candidate, reference, entities of both
    "s100": (0.9, "Heart is large. No rib.", "Heart is large.\nNo rib.", [(2, 2, "matched")], [(2, 2, "matched")]),
    "s200": (
        0.25,
        "Left pneumothorax.",
        "Small left clot.",
        [(0, 1, "hallucinated")],
        [(0, 0, "missed"), (2, 2, "missed")],
    ),
    "s300": (0.0, HOSTILE, "Clear lungs.", [], [(0, 1, "missed")]),
    "=s400": (0.5, "", "Lungs are clear.", [], [(2, 2, "missed")]),
}


def write_evaluation(folder: Path, cases: dict[str, tuple], *, synthetic: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows, lines = [], []
    for system in ("model", "shuffled"):
        for study_id, (score, candidate, reference, _, _) in cases.items():
            rows.append(
                {
                    "study_id": study_id,
                    "patient_id": f"patient-of-{study_id}",
                    "system": system,
                    "candidate": candidate if system == "model" else "Not to be shown.",
                    "reference": reference,
                    "radgraph_simple": score,
                    "radgraph_partial": score,
                    "radgraph_partial_precision": score,
                    "radgraph_partial_recall": min(1.0, 2 * score),
                    "bleu4": None,
                    "omitted_findings": 1.0 - score,
                    "mean_logprob": {"s100": -0.9}.get(study_id, -score / 10) if system == "model" else None,
                }
            )
    for study_id, (_, candidate, reference, ours, theirs) in cases.items():
        record = {"study_id": study_id, "candidate": side(candidate, *ours), "reference": side(reference, *theirs)}
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    pq.write_table(pa.Table.from_pylist(rows), folder / "studies.parquet")
    pq.write_table(pa.Table.from_pylist(FINDINGS), folder / "findings.parquet")
    (folder / "entities.jsonl").write_text("".join(lines), encoding="utf-8")
    interval = {"value": 0.41, "low": 0.38, "high": 0.44}
    summary = {
        "conditions": {
            "level": "partial",
            "model": "tiny <b>",
            "synthetic": synthetic,
            "splits": ["a", "b"],
            "metrics": {
                "radgraph_partial": {"numbers": ["radgraph_partial", "radgraph_partial_precision"], "model": "x"},
                "bleu4": {"numbers": ["bleu4"]},
            },
        },
        "systems": {"model": {"radgraph_partial": interval}, "shuffled": {"radgraph_partial": interval}},
        "differences": {},
        "counts": {},
    }
    (folder / "scores.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def write_studies(cases: dict[str, tuple]) -> Images:
    return Images(
        [
            Study(
                study_id=study_id,
                patient_id=f"patient-of-{study_id}",
                split=Split.TEST,
                image_ids=("a", "bb") if study_id == "s200" else ("a",),
                report=Report(indication="Cough & <i>fever</i>.", findings=reference),
            )
            for study_id, (_, _, reference, _, _) in cases.items()
        ]
    )


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    return write_evaluation(tmp_path / "evaluation", CASES)


@pytest.fixture
def images() -> Images:
    return write_studies(CASES)


@pytest.fixture(scope="module")
def big_review(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 2,000 studies; the images repeat, as drawing and packing that many would take most of the time."""
    folder = tmp_path_factory.mktemp("big")
    cases = {
        f"s{number:05d}": (
            number / 2000,
            f"Heart is normal word{number}. " * 12,
            f"Lungs are clear word{number}. " * 12,
            [(0, 0, "hallucinated")],
            [(2, 2, "missed")],
        )
        for number in range(2000)
    }
    evaluation = write_evaluation(folder / "evaluation", cases)
    drawn = write_studies(cases).image("a")[:32, :32]
    images = write_studies(cases)
    images.image = lambda image_id: drawn  # type: ignore[method-assign]
    write_page(read_evaluation(evaluation), images, folder / "review.html")  # type: ignore[arg-type]
    return folder / "review.html"


_BROWSER = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if _BROWSER is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_BROWSER, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[[Content, Images], Any]]:
    """Writes a page and opens it; errors of its script and requests to other places fail the test."""
    problems: list[str] = []
    asked: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)

    def open_page(content: Content, images: Images, **options: Any) -> Any:
        write_page(content, images, tmp_path / "review.html", **options)  # type: ignore[arg-type]
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "review.html").as_uri())
        return page

    yield open_page
    assert problems == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()


@pytest.fixture
def page(opened: Callable[..., Any], evaluation: Path, images: Images) -> Any:
    return opened(read_evaluation(evaluation), images)
