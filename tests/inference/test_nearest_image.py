from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cxrreport.errors import InputError, SettingsError
from cxrreport.inference import nearest_image
from cxrreport.inference.generate import GenerateSummary
from cxrreport.model.prompt import pixel_values
from cxrreport.records import Report, Split, Study
from cxrreport.settings import GenerateSettings, build


def study(split: str, number: int, patient: str, text: str = "") -> Study:
    """Images whose ids end alike are the same picture (`conftest.drawn`)."""
    return Study(
        study_id=f"{split}{number}",
        patient_id=patient,
        split=Split(split),
        image_ids=(f"{split}-{number:06d}",),
        report=Report(findings=text, impression=text and "As above."),
    )


TRAINING = [study("train", number, f"t{number}", f"Report {number}.") for number in range(8)]


@pytest.fixture
def run(loaded, layout, studies_of, generate_into, tmp_path: Path) -> Callable[..., GenerateSummary]:
    def running(studies: list[Study], *, name: str = "out", missing=(), progress=None, **changes) -> GenerateSummary:
        given = {"input": tmp_path, "output": tmp_path / name, "baseline": "nearest", "batch_size": 2, "shard_size": 3}
        return generate_into(
            GenerateSettings(**given | changes), studies_of(studies, missing=missing), loaded, layout, progress
        )

    return running


def rows(folder: Path) -> dict[str, dict]:
    return {row["study_id"]: row for row in pq.read_table(folder / "predictions.parquet").to_pylist()}


def test_each_study_gets_the_report_of_its_twin(run, studies_of, tmp_path: Path) -> None:
    asked = [study("test", number, f"p{number}") for number in (5, 0, 3, 7)]
    told: list[tuple[int, int, str]] = []
    summary = run([*TRAINING, *asked], progress=lambda *step: told.append(step))
    assert (summary.predictions, summary.failed) == (4, 0)
    found = rows(tmp_path / "out")
    for one in asked:
        row, number = found[one.study_id], int(one.study_id[4:])
        assert row["text"] == f"FINDINGS: Report {number}. IMPRESSION: As above."
        assert (row["findings"], row["impression"], row["tokens"]) == (f"Report {number}.", "As above.", 0)
        assert row["image_ids"] == [f"test-{number:06d}", f"train-{number:06d}"]
        pixels = studies_of([]).image(f"test-{number:06d}")
        assert row["image_sha256"] == [hashlib.sha256(pixels.tobytes()).hexdigest()] * 2
    assert (8, 8, "training images") in told and told[-1] == (4, 4, "studies")
    assert json.loads((tmp_path / "out/generate.json").read_text())["baseline"] == "nearest"
    assert not (tmp_path / "out/nearest").exists()


def test_nearest_is_by_cosine_of_the_mean_feature_and_never_of_the_own_patient(
    run, loaded, studies_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest_image, "CHUNK", 3)
    asked = [study("test", number, f"t{number}") for number in range(8)]  # the twin is the same patient's
    run([*TRAINING, study("train", 99, "silent"), *asked])
    pixels = pixel_values([studies_of([]).image(f"train-{number:06d}") for number in range(8)])
    with torch.no_grad():
        pooled = loaded.model.get_image_features(pixels).last_hidden_state.mean(dim=1).numpy()
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    alike = pooled @ pooled.T - 2 * np.eye(8)
    assert [row["findings"] for row in rows(tmp_path / "out").values()] == [
        f"Report {best}." for best in alike.argmax(axis=1)
    ]


def test_finished_features_are_kept_after_an_interruption(
    run, studies_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest_image, "CHUNK", 3)

    def stop(done: int, total: int, label: str) -> None:
        if label == "training images" and done == 5:
            raise KeyboardInterrupt

    studies = [*TRAINING, study("test", 4, "p")]
    with pytest.raises(KeyboardInterrupt):
        run(studies, progress=stop)
    first = tmp_path / "out/nearest/00000.npy"
    written = first.stat().st_mtime_ns
    told: list[int] = []
    run(studies, progress=lambda done, total, label: told.append(done) if label == "training images" else None)
    assert written and told == [3, 5, 6, 6, 8, 8]
    assert rows(tmp_path / "out")["test4"]["findings"] == "Report 4."


def test_a_study_whose_image_fails_is_a_row(run, tmp_path: Path) -> None:
    asked = [study("test", number, "p") for number in (1, 2)]
    assert run([*TRAINING, *asked], missing=("test-000001",)).failed == 1
    assert list(rows(tmp_path / "out")) == ["test2"]
    (failed,) = pq.read_table(tmp_path / "out/failed.parquet").to_pylist()
    assert (failed["study_id"], failed["reason"]) == ("test1", "image-file-missing")


def test_the_training_split_needs_a_report_to_copy(run, tmp_path: Path) -> None:
    asked = study("test", 1, "t1")
    with pytest.raises(InputError, match="no study with a report; ingest the training split"):
        run([asked], name="none")
    with pytest.raises(InputError, match="no study with a report"):
        run([study("train", 2, "t2"), asked], name="silent")
    with pytest.raises(InputError, match="of another patient"):
        run([TRAINING[1], asked], name="own")
    with pytest.raises(SettingsError, match="remove prompts"):
        build(GenerateSettings, {"input": "a", "output": "b", "baseline": "nearest", "prompts": ["x"]}, where="here")
