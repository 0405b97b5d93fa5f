"""CheXpert Plus and ReXGradient-160K as their public descriptions arrange them, with drawn images."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ingest_runs import ledger, run
from PIL import Image

from cxrreport.dataset import Manifest
from cxrreport.errors import InputError
from cxrreport.records import Split, View

CHEXPERT = ("path_to_image", "frontal_lateral", "ap_pa", "deid_patient_id", "split", "section_findings")
CHEXPERT += ("section_impression", "section_clinical_history", "section_history", "section_comparison")


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(seed).integers(0, 255, (12, 10))
    Image.fromarray(np.kron(rows, np.ones((20, 20))).astype(np.uint8)).save(path)


def chexpert(root: Path, changes: dict[str, Any] | None = None) -> Path:
    rows = []
    for number, split in enumerate(("train", "train", "valid"), start=1):
        for view, side in (("view1_frontal", "Frontal"), ("view2_lateral", "Lateral")):
            place = f"{split}/patient{number:05}/study1/{view}"
            rows.append(
                {
                    "path_to_image": f"{place}.jpg",
                    "frontal_lateral": side,
                    "ap_pa": "AP" if side == "Frontal" else "",
                    "deid_patient_id": f"patient{number:05}",
                    "split": split,
                    "section_findings": f"Lungs of {number} are clear.",
                    "section_impression": f"\n1. NORMAL {number}.",
                    "section_history": "cough",
                }
            )
            if (number, side) != (2, "Lateral"):
                draw(root / "PNG" / f"{place}.png", number * 10 + len(side))
    rows[0] |= changes or {}
    with (root / "df_chexpert_plus_240401.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, CHEXPERT)
        writer.writeheader()
        writer.writerows(rows)
    (root / "chexbert_labels").mkdir()
    (root / "chexbert_labels" / "findings_fixed.json").write_text("{}")
    return root


def test_chexpert_plus(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    summary = run(chexpert(tmp_path / "in"), tmp_path / "out")
    assert (summary.layout, summary.official_split, summary.kept) == ("chexpert-plus", True, 3)
    assert summary.left_out == {"not-frontal": 2, "image-file-missing": 1} and summary.read == 6
    manifest = Manifest.open(tmp_path / "out")
    study = next(one for one in manifest.studies() if one.study_id == "patient00003_study1")
    assert (study.patient_id, study.split) == ("patient00003", Split.VALIDATE)
    assert study.report.findings == "Lungs of 3 are clear." and study.report.indication == "cough"
    image = manifest.images[study.image_ids[0]]
    assert (image.image_id, image.view) == ("patient00003_study1_view1_frontal", View.AP)
    missing = [row for row in ledger(tmp_path / "out") if row["reason"] == "image-file-missing"]
    assert missing[0]["source"] == "train/patient00002/study1/view2_lateral"


def test_reports_of_one_study_that_differ(tmp_path: Path) -> None:
    """As published, each image has its own copy of the report, with other surrogates."""
    (tmp_path / "in").mkdir()
    summary = run(chexpert(tmp_path / "in", {"section_findings": "Seen by Dr. Xyz."}), tmp_path / "out", views="all")
    assert summary.notes["reports-differ"] == 2
    studies = {study.study_id: study.report.findings for study in Manifest.open(tmp_path / "out").studies()}
    assert studies["patient00001_study1"] == "Seen by Dr. Xyz."
    assert studies["patient00003_study1"] == "Lungs of 3 are clear."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path_to_image": "elsewhere.jpg"}, "a path_to_image is not of the form"),
        ({"split": "later"}, "column split holds a value"),
    ],
)
def test_a_wrong_table_of_chexpert_plus(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match=message):
        run(chexpert(tmp_path / "in", changes), tmp_path / "out")


def rexgradient(root: Path, *, reports_in_json: bool) -> Path:
    (root / "metadata").mkdir(parents=True)
    for number, split in enumerate(("train", "valid", "test")):
        study = f"GRDNP{number}_GRDNA{number}"
        places = [
            f"../deid_png/GRDNP{number}/GRDNA{number}/studies/1/series/2/instances/i{number}{n}.png" for n in "ab"
        ]
        sections = {"Findings": f"Clear {number}.", "Impression": float("nan"), "Indication": "cough"}
        entry: dict[str, Any] = {"ImagePath": places, "ImageViewPosition": ["PA", "LATERAL"]}
        if reports_in_json:
            entry |= sections
        else:
            (root / "metadata" / f"{split}_metadata.csv").write_text(
                f"id,Findings,Impression,Indication\n{study},Clear {number}.,,cough\n"
            )
        (root / "metadata" / f"{split}_metadata_view_position.json").write_text(json.dumps({study: entry}))
        for place in places:
            draw(root / place.removeprefix("../"), len(place) + number)
    draw(root / "deid_png" / "GRDNP9" / "other.png", 99)
    return root


@pytest.mark.parametrize("reports_in_json", [True, False])
def test_rexgradient(tmp_path: Path, reports_in_json: bool) -> None:
    summary = run(rexgradient(tmp_path / "in", reports_in_json=reports_in_json), tmp_path / "out")
    assert (summary.layout, summary.official_split, summary.kept) == ("rexgradient", True, 3)
    assert summary.left_out == {"not-frontal": 3, "no-report": 1}
    study = Manifest.open(tmp_path / "out").studies(Split.VALIDATE)[0]
    assert (study.study_id, study.patient_id) == ("GRDNP1_GRDNA1", "GRDNP1")
    assert (study.report.findings, study.report.impression, study.report.indication) == ("Clear 1.", "", "cough")


def test_wrong_metadata_of_rexgradient(tmp_path: Path) -> None:
    root = rexgradient(tmp_path / "in", reports_in_json=True)
    path = root / "metadata" / "test_metadata_view_position.json"
    path.write_text(json.dumps({"a_b": {"ImagePath": ["../deid_png/x.png"], "ImageViewPosition": []}}))
    with pytest.raises(InputError, match="as many ImageViewPosition as ImagePath"):
        run(root, tmp_path / "out")
    path.write_text("[")
    with pytest.raises(InputError, match="not a JSON file"):
        run(root, tmp_path / "out")
