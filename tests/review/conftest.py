from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrreport.errors import ManifestError
from cxrreport.records import Report, Split, Study
from cxrreport.review import write_page

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
    """A row of findings.parquet; each side as `presence side severity`, as far as it is said."""
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
    write_page(evaluation, images, folder / "review.html", None)  # type: ignore[arg-type]
    return folder / "review.html"
