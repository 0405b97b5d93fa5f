"""References and predictions of all studies in one JSON file, in the format of ReXrank's leaderboard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxrreport import __version__
from cxrreport.dataset import Manifest
from cxrreport.export.sources import read_predictions
from cxrreport.records import Study
from cxrreport.storage.atomic_files import atomic_path


def write(path: Path, predictions: Path, manifest: Manifest) -> list[str]:
    """Write one entry for each prediction, by study id; returns the ids.

    `model_prediction` is "Findings: ... Impression: ...", with the sections that were generated, or the text without
    headers. `subject_id`, `split`, `context`, `image_path`, `section_findings`, `section_impression` and `report` are
    those of the manifest, and absent for a study that it does not have.

    Raises:
        InputError: the predictions cannot be read.
    """
    studies = {study.study_id: study for study in manifest.studies()}
    entries: dict[str, dict[str, Any]] = {}
    for prediction in read_predictions(predictions):
        study = studies.get(prediction.study_id)
        generated = _sections(prediction.findings, prediction.impression) or prediction.text
        entries[prediction.study_id] = ({} if study is None else _entry(study, manifest)) | {
            "model_prediction": generated
        }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(entries, indent=2, ensure_ascii=False), encoding="utf-8")
    return list(entries)


_FRONTAL_ALONE = """

This model was trained with laterals or prior studies. ReXrank's files name neither views nor prior studies, so it reads
the key image of each study alone, as for a patient without them."""
_SCRIPT = '''"""Inference for ReXrank, written by cxrreport {version}.

python inference.py --input_json_file FILE --save_json_file FILE --img_root_dir DIR

Needs `pip install cxrreport` and the weights below, as paths of the machine that runs it.{limits}
"""

import argparse
from pathlib import Path

from cxrreport.runs import infer_rexrank
from cxrreport.settings import CheckpointSettings

ADAPTER = {adapter!r}
CHECKPOINT = {checkpoint!r}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--input_json_file", "--save_json_file", "--img_root_dir"):
        parser.add_argument(name, type=Path, required=True)
    given = parser.parse_args()
    infer_rexrank(
        given.input_json_file,
        given.save_json_file,
        given.img_root_dir,
        resolution={resolution},
        resize={resize!r},
        max_images={max_images},
        adapter=Path(ADAPTER) if ADAPTER else None,
        checkpoint=CheckpointSettings(**CHECKPOINT) if CHECKPOINT else None,
    )
'''


def write_inference(path: Path, generated: Mapping[str, Any], manifest: Manifest) -> None:
    """Write the `inference.py` that a submission contains: the same model, on the files that ReXrank gives it.

    Args:
        path: the script.
        generated: content of `generate.json`.
        manifest: of the images that the predictions were made from.
    """
    settings = generated["settings"]
    adapter = settings.get("adapter")
    prompt = generated["inputs"].get("prompt", {})
    several = prompt.get("views", "frontal") != "frontal" or prompt.get("prior", "none") != "none"
    script = _SCRIPT.format(
        version=__version__,
        limits=_FRONTAL_ALONE if several else "",
        adapter=str(Path(adapter).absolute()) if adapter else "",
        checkpoint=None if adapter else settings.get("checkpoint"),
        resolution=manifest.resolution,
        resize=manifest.preprocessing["resize"],
        max_images=prompt.get("max_images", 1),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(script, encoding="utf-8")


def _entry(study: Study, manifest: Manifest) -> dict[str, Any]:
    report = study.report
    images = [manifest.images[image_id].source for image_id in study.image_ids]
    return {
        "subject_id": study.patient_id,
        "split": study.split.value,
        "image_path": images,
        "key_image_path": images[0],
        "context": f"Indication: {report.indication}" if report.indication else "",
        "section_findings": report.findings,
        "section_impression": report.impression,
        "report": _sections(report.findings, report.impression),
    }


def _sections(findings: str, impression: str) -> str:
    parts = {"Findings": findings, "Impression": impression}
    return " ".join(f"{name}: {text}" for name, text in parts.items() if text)
