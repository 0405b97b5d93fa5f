"""A submission of ReXrank: JSON and pictures in, the same JSON with predictions out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrreport.errors import InputError, ScoreError
from cxrreport.evaluation.inputs import tables
from cxrreport.runs import infer_rexrank
from cxrreport.runs.rexrank import _INDICATION, _images
from cxrreport.settings import CheckpointSettings

TINY = CheckpointSettings(name="tiny")


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(seed).integers(0, 255, (16, 16))
    Image.fromarray(np.kron(rows, np.ones((20, 20))).astype(np.uint8)).save(path)


def test_every_study_of_the_file_gets_a_prediction(tmp_path: Path) -> None:
    studies = {}
    for number in range(3):
        place = f"/p10/p1000000{number}/s{number}/image.jpg"
        if number < 2:
            draw(tmp_path / "images" / place.lstrip("/"), number)
        studies[f"s{number}"] = {
            "image_path": [place],
            "key_image_path": place,
            "context": "Age:50-60.Gender:M.Indication: cough Comparison: None.",
            "section_findings": "Clear.",
            "section_impression": "",
        }
    studies |= {
        " s0": studies["s0"],
        "00,1": studies["s0"],
    }  # the same study again, under ids that a table would change
    source = tmp_path / "in.json"
    source.write_text(json.dumps(studies))
    count = infer_rexrank(source, tmp_path / "out.json", tmp_path / "images", resolution=224, checkpoint=TINY)
    written = json.loads((tmp_path / "out.json").read_text())
    assert count == 5 and list(written) == list(studies)
    assert all(written[name].items() >= entry.items() for name, entry in studies.items())
    assert written["s0"]["model_prediction"] and written["s2"]["model_prediction"] == ""
    assert {written[name]["model_prediction"] for name in ("s0", " s0", "00,1")} == {written["s0"]["model_prediction"]}
    with pytest.raises(ScoreError, match="studies occur twice: s0;"):  # ids of tables have no white space around them
        tables.read_predictions(tmp_path / "out.json", "findings")


def test_context_and_images_of_an_entry() -> None:
    found = {
        "<context>Age:50.Gender:M.Indication: ___-year-old male.  Evaluate.</context>": "___-year-old male.  Evaluate.",
        "Indication: Chest pain, dyspnea Comparison: None.": "Chest pain, dyspnea",
    }
    for context, indication in found.items():
        match = _INDICATION.search(context)
        assert match is not None and match[1] == indication
    assert _INDICATION.search("Age: 50") is None
    assert _images({"image_path": ["b", "a"], "key_image_path": "a"}, 1) == ["a"]
    assert _images({"image_path": ["b", "a"], "key_image_path": "a"}, 2) == ["a", "b"]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text("[1]")
    with pytest.raises(InputError, match="expected the format of ReXrank"):
        infer_rexrank(tmp_path / "in.json", tmp_path / "o.json", tmp_path, resolution=224, checkpoint=TINY)
