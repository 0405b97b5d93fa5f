"""Inference as ReXrank's submissions are run: a JSON file of studies in, the same with `model_prediction` out."""

from __future__ import annotations

import csv
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from cxrreport.errors import InputError
from cxrreport.records import Progress
from cxrreport.runs.command import silent
from cxrreport.runs.pipeline import generate, ingest
from cxrreport.settings import CheckpointSettings, GenerateSettings, IngestSettings, TrackingSettings, build
from cxrreport.storage.atomic_files import atomic_path
from cxrreport.storage.decoding import parse_json

_INDICATION = re.compile(r"indication:\s*(.*?)\s*(?:comparison:|</context>|$)", re.I | re.S)


def infer(
    input_json: Path,
    output_json: Path,
    images: Path,
    *,
    resolution: int,
    resize: str = "squash",
    adapter: Path | None = None,
    checkpoint: CheckpointSettings | None = None,
    max_images: int = 1,
    progress: Progress | None = None,
) -> int:
    """Generate reports for the studies of a ReXrank file; returns their number.

    Args:
        input_json: study id to `image_path` (a list), `key_image_path` and `context`.
        output_json: file to write: the entries with `model_prediction`, empty for a study without a readable image.
        images: folder that the paths start from.
        resolution: side of the images that the model takes, pixels.
        resize: how they were made square in training.
        adapter: as in `generate`.
        checkpoint: as in `generate`.
        max_images: images of a study that the model reads; 1 for the key image.
        progress: as in `generate`.

    Raises:
        InputError: the file is not ReXrank's.
        CxrReportError: as `ingest` and `generate`.
    """
    try:
        studies: Any = parse_json(input_json.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{input_json}: not a JSON file that can be read") from error
    if not isinstance(studies, dict) or not all(isinstance(entry, dict) for entry in studies.values()):
        raise InputError(f"{input_json}: expected the format of ReXrank, an object with one object for each study id")
    with tempfile.TemporaryDirectory(prefix="cxrreport-rexrank-") as folder:
        work, off = Path(folder), TrackingSettings(enabled=False)
        with (work / "studies.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("image", "study_id", "patient_id", "indication"))
            # Numbers, because a table changes ids with white space; one for all studies that give the model the same.
            numbers: dict[tuple[Any, ...], str] = {}
            number_of: dict[str, str] = {}
            for study, entry in studies.items():
                found = _INDICATION.search(str(entry.get("context") or ""))
                read = (*_images(entry, max_images), found[1] if found else "")
                known = len(numbers)
                number_of[study] = number = numbers.setdefault(read, f"{known}")
                for image in read[:-1] if len(numbers) > known else ():
                    writer.writerow((image.lstrip("/"), number, number, read[-1]))
        given = {"input": images, "reports": work / "studies.csv", "output": work / "ingested", "tracking": off}
        given |= {"layout": "table", "require_report": False, "resolution": resolution, "resize": resize}
        ingest(build(IngestSettings, given | {"views": "all"}, where="ReXrank"), progress=progress or silent)
        values: dict[str, Any] = {
            "input": work / "ingested",
            "output": work / "reports",
            "split": None,
            "tracking": off,
        }
        values |= {"adapter": adapter, "checkpoint": checkpoint}
        generate(build(GenerateSettings, values, where="ReXrank"), progress=progress or silent)
        with (work / "reports" / "predictions.jsonl").open(encoding="utf-8") as lines:
            reports = {row["study_id"]: _prediction(row) for row in map(json.loads, lines)}
    written = {
        study: entry | {"model_prediction": reports.get(number_of[study], "")} for study, entry in studies.items()
    }
    with atomic_path(output_json) as temporary:
        temporary.write_text(json.dumps(written, indent=2, ensure_ascii=False), encoding="utf-8")
    return len(written)


def _images(entry: dict[str, Any], most: int) -> list[str]:
    """The key image first, then the others."""
    listed = entry.get("image_path") or []
    places = [entry.get("key_image_path"), *(listed if isinstance(listed, list) else [listed])]
    return list(dict.fromkeys(str(place) for place in places if place))[:most]


def _prediction(row: dict[str, Any]) -> str:
    parts = {"Findings": row["findings"], "Impression": row["impression"]}
    return " ".join(f"{name}: {text}" for name, text in parts.items() if text) or str(row["text"])
