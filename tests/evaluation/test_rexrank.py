from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cxrreport.errors import InputError, ScoreError
from cxrreport.evaluation.evaluate import evaluate
from cxrreport.evaluation.inputs.tables import read_predictions, read_references
from cxrreport.settings import EvaluateSettings

# Fields of data/mimic-cxr/ReXRank_MIMICCXR_test.json and of example_files/prediction.json; texts are made up.
CURRENT = {
    "image_path": ["p10/p10046166/s50051329/a.jpg", "p10/p10046166/s50051329/b.jpg"],
    "key_image_path": "p10/p10046166/s50051329/a.jpg",
    "report": "Findings: The lungs are clear. Impression: Normal.",
    "section_findings": "The lungs are clear.",
    "section_impression": "Normal.",
    "split": "test",
}
FORMER = {"findings": "Small effusion.", "impression": "Effusion.", "subject_id": 10046166, "split": "val"}


def write(path: Path, studies: Any) -> Path:
    path.write_text(json.dumps(studies))
    return path


def test_both_forms_of_references(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = CURRENT | {"image_path": ["x.png"], "section_findings": float("nan"), "split": "valid"}
    studies = {"50051329": CURRENT, "2": FORMER, "CXR2279_IM-0865": own, "own": own}
    found = read_references(write(tmp_path / "r.json", studies), "findings+impression")
    assert found.texts == {
        "50051329": "The lungs are clear. Normal.",
        "2": "Small effusion. Effusion.",
        "CXR2279_IM-0865": "Normal.",
        "own": "Normal.",
    }
    assert list(found.patients.values()) == ["p10046166", "10046166", "CXR2279", "own"]
    assert list(found.splits.values()) == ["test", "validate", "validate", "validate"]
    assert "1 studies have no patient" in caplog.text


def test_predictions_are_split_at_their_headers(tmp_path: Path) -> None:
    glued = "Findings:The heart is stable.  No edema.Impression:No acute process."
    studies = {"1": CURRENT | {"model_prediction": glued}, "2": FORMER, "3": {"model_prediction": "Clear."}}
    path = write(tmp_path / "p.json", studies)
    assert read_predictions(path, "impression").texts == {"1": "No acute process.", "2": None, "3": "Clear."}
    assert read_predictions(path, "findings").texts["1"] == "The heart is stable.  No edema."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "an object with one object for each study id"),
        ('{"1": "text"}', "an object with one object for each study id"),
        ("{", "not a JSON file"),
        ('{"1": {"findings": "a"}, "1": {"findings": "b"}}', "'1' occurs twice"),
        ('{"1": {"report": "a"}}', "no study has section_findings"),
        ('{"1": {"findings": ["a"]}}', "findings of study '1' is no text"),
        (
            '{"2": {"findings": "a"}, "1": {"section_findings": "a", "section_impression": 7}}',
            "impression of study '1'",
        ),
        ("{}", "has no rows"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises((InputError, ScoreError), match=message):
        read_references(path, "findings")


def test_a_file_without_predictions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no study has model_prediction"):
        read_predictions(write(tmp_path / "r.json", {"1": CURRENT}), "findings")


def test_a_prediction_that_is_no_text_is_named(tmp_path: Path) -> None:
    studies = {"1": FORMER | {"model_prediction": float("nan")}, "2": CURRENT | {"model_prediction": ["Clear."]}}
    with pytest.raises(InputError, match="model_prediction of study '2' is no text"):
        read_predictions(write(tmp_path / "p.json", studies), "findings")


def test_one_file_is_evaluated(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", {str(n): CURRENT | {"model_prediction": CURRENT["report"]} for n in range(3)})
    found = evaluate(
        EvaluateSettings(
            predictions=path, references=path, output=tmp_path / "o", metrics=("bleu",), bootstrap_samples=20
        )
    )
    assert found.systems["model"]["bleu4"].value == pytest.approx(1) and found.counts["scored"] == 3


def test_a_cohort_of_another_size_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "studies.json"
    entry = {"section_findings": "The lungs are clear.", "model_prediction": "Clear.", "subject_id": 1}
    file.write_text(json.dumps({str(number): entry for number in range(3)}))
    values = {"predictions": file, "references": file, "output": tmp_path / "scores", "metrics": ("rouge_l",)}
    with pytest.raises(ScoreError, match="3 studies are scored, and expected_studies is 590"):
        evaluate(EvaluateSettings(**values, expected_studies=590))
    assert evaluate(EvaluateSettings(**values, expected_studies=3)).counts["scored"] == 3
