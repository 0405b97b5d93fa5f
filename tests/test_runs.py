"""The verbs one after the other on drawn images, with a random model of two layers: what they hand on and log."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as StoredRun
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from cxrreport import runs
from cxrreport.errors import InputError, ManifestError, MismatchError, OutputError, SettingsError, WeightsError
from cxrreport.evaluation.metrics import metric
from cxrreport.settings import (
    CheckpointSettings,
    EvaluateSettings,
    GenerateSettings,
    IngestSettings,
    LoraSettings,
    PromptSettings,
    ReviewSettings,
    TrackingSettings,
    TrainSettings,
    ValidationSettings,
)

SECRET = "ZEBRAFISH"
"""A word of every report: it must not be found in anything that MLflow holds."""
REPORTS = (
    f"The heart is enlarged. No pleural effusion. {SECRET}.",
    f"Small left pleural effusion. The heart is normal. {SECRET}.",
    f"Lungs are clear. No pneumothorax. {SECRET}.",
)
PROMPT = PromptSettings(max_suffix_tokens=24)


def write_studies(folder: Path) -> Path:
    """Twelve studies of six patients as PNG files, with a table."""
    folder.mkdir()
    random = np.random.default_rng(0)
    with (folder / "studies.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "study_id", "patient_id", "split", "indication", "findings", "impression"])
        for number in range(12):
            name = f"{number:02}.png"
            Image.fromarray(random.integers(0, 256, (60, 50), dtype=np.uint8)).save(folder / name)
            split = ("train", "train", "train", "validate", "test", "test")[number // 2]
            report = REPORTS[number % 3]
            table.writerow([name, f"study{number:02}", f"SUBJECT{number // 2}", split, "cough", report, report])
    return folder


def write_dicom(path: Path, number: int, *, part: str = "CHEST") -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID = generate_uid(entropy_srcs=["study", str(number)])
    data.PatientID, data.PatientName = f"SUBJECT{number}", "Example^Person"
    data.Modality, data.BodyPartExamined, data.ViewPosition = "DX", part, "PA"
    data.Rows, data.Columns, data.SamplesPerPixel = 80, 64, 1
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PhotometricInterpretation = "MONOCHROME2"
    pixels = np.random.default_rng(number).integers(0, 4096, (80, 64), dtype=np.uint16)
    data.PixelData = pixels.tobytes()
    data.save_as(path, enforce_file_format=True)


@dataclass(frozen=True)
class Road:
    """Everything from one end to the other, made once."""

    folder: Path
    checkpoint: CheckpointSettings
    ingested: runs.Summary
    trained: runs.Summary
    generated: runs.Summary
    bare: runs.Summary
    evaluated: runs.Summary
    reviewed: runs.Summary

    def run(self, summary: runs.Summary) -> StoredRun:
        return MlflowClient(summary.tracking_uri).get_run(summary.run_id)


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory, generation_checkpoint_folder: Path) -> Iterator[Road]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        folder = tmp_path_factory.mktemp("road")
        checkpoint = CheckpointSettings(name=str(generation_checkpoint_folder), precision="float32", device="cpu")
        ingested = runs.ingest(
            IngestSettings(input=write_studies(folder / "in") / "studies.csv", output=folder / "data", layout="table")
        )
        trained = runs.train(
            TrainSettings(
                data=folder / "data",
                output=folder / "train",
                checkpoint=checkpoint,
                prompt=PROMPT,
                lora=LoraSettings(rank=2, alpha=4),
                max_steps=3,
                learning_rate=0.03,
                batch_size=2,
                accumulation=1,
                validation=ValidationSettings(radgraph="tiny"),
            )
        )
        adapter = folder / "train" / "adapter"
        generated = runs.generate(
            GenerateSettings(input=folder / "data", output=folder / "tuned", adapter=adapter, max_new_tokens=8)
        )
        bare = runs.generate(
            GenerateSettings(
                input=folder / "data", output=folder / "bare", checkpoint=checkpoint, prompt=PROMPT, max_new_tokens=8
            )
        )
        evaluated = runs.evaluate(
            EvaluateSettings(
                predictions=folder / "tuned",
                references=folder / "data",
                output=folder / "scores",
                baselines={"no_adapter": folder / "bare"},
                radgraph="tiny",
                bootstrap_samples=50,
            ),
            extra_metrics=[metric("length")(lambda pairs: dict.fromkeys(pairs.references, 0.5))],
        )
        reviewed = runs.review(
            ReviewSettings(evaluation=folder / "scores", data=folder / "data", output=folder / "review.html")
        )
        yield Road(folder, checkpoint, ingested, trained, generated, bare, evaluated, reviewed)


def test_ingest_counts_what_it_kept(road: Road) -> None:
    assert road.ingested.facts["read"] == road.ingested.facts["kept"] == 12
    found = road.run(road.ingested)
    assert found.data.metrics["kept"] == 12
    assert found.data.metrics["split/test"] == 4
    assert found.data.params["layout"] == "table"
    assert {"contact_sheet.png", "ingest.json", "settings.json"} <= artifacts(road, road.ingested)


def test_training_logs_its_curve_and_its_adapter(road: Road) -> None:
    client = MlflowClient(road.trained.tracking_uri)
    curve = client.get_metric_history(road.trained.run_id, "loss")
    assert [point.step for point in curve] == [1, 2, 3]
    assert road.run(road.trained).data.metrics["final/samples"] == 6
    kept = artifacts(road, road.trained)
    assert {"loss.png", "log.jsonl", "train.json"} <= kept


def test_the_test_split_gets_reports(road: Road) -> None:
    predictions = pq.read_table(road.folder / "tuned" / "predictions.parquet").to_pylist()
    assert [row["study_id"] for row in predictions] == ["study08", "study09", "study10", "study11"]
    assert road.run(road.generated).data.metrics["predictions"] == 4


def test_scores_stand_beside_their_controls_with_intervals(road: Road) -> None:
    assert {"model", "no_adapter", "most_frequent"} == road.evaluated.result.systems.keys()
    score = road.evaluated.facts["radgraph_partial/most_frequent"]
    assert score["low"] <= score["value"] <= score["high"]
    run = road.run(road.evaluated)
    found = run.data.metrics
    assert found["length"] == 0.5
    assert len([name for name in found if not name.startswith("system/")]) < 25
    # Each baseline is a run below, with the same names.
    client = MlflowClient(road.evaluated.tracking_uri)
    below = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    numbers = {one.data.tags["cxrreport.system"]: one.data.metrics for one in below}
    assert numbers.keys() == {"no_adapter", "most_frequent"}
    assert numbers["most_frequent"]["radgraph_partial"] == pytest.approx(score["value"])
    assert numbers["most_frequent"]["radgraph_partial/low"] == pytest.approx(score["low"])
    # Everything else is in tables.
    folder = road.folder / "mlartifacts" / road.evaluated.run_id / "artifacts"
    rows = json.loads((folder / "all_scores.json").read_text())["data"]
    assert ["radgraph_partial", "most_frequent", *score.values()] in rows
    analyses = dict(json.loads((folder / "analyses.json").read_text())["data"])
    assert analyses["findings/model/Pneumothorax/agreed"] >= 0
    assert analyses["subgroups/reference/abnormal/patients"] >= 1
    shown = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert [one["path"] for one in shown] == ["all_scores.json", "analyses.json", "conditions.json"]
    assert {"scores.png", "findings.png", "selective.png"} <= artifacts(road, road.evaluated)
    assert any("synthetic" in warning for warning in road.evaluated.warnings)
    # Sentences of reports are in a file of their own, which stays where it is.
    assert json.loads((road.evaluated.output / "sentences.json").read_text())["model"] != []
    assert "sentences" not in json.loads((folder / "scores.json").read_text())["diversity"]["systems"]["model"]
    assert "sentences.json" not in artifacts(road, road.evaluated)


def test_the_page_is_written_and_stays_out_of_the_store(road: Road) -> None:
    assert road.reviewed.result == 4
    assert SECRET in (road.folder / "review.html").read_text(encoding="utf-8")
    assert not any(name.endswith(".html") for name in artifacts(road, road.reviewed))


def test_from_a_score_one_walks_back_to_the_data(road: Road) -> None:
    scores, reports, adapter, data = (
        road.run(summary).data.tags for summary in (road.evaluated, road.generated, road.trained, road.ingested)
    )
    assert scores["digest.evaluation.predictions"] == reports["digest.output.predictions"]
    assert reports["digest.model.adapter"] == adapter["digest.output.adapter"]
    assert adapter["digest.training.manifest"] == data["digest.output.manifest"]
    assert scores["digest.evaluation.references"] == data["digest.output.manifest"]
    assert scores["cxrreport.predictions_run"] == road.generated.run_id
    assert scores["cxrreport.model_run"] == scores["mlflow.parentRunId"] == road.trained.run_id
    assert reports["cxrreport.model_run"] == road.trained.run_id
    client = MlflowClient(road.evaluated.tracking_uri)
    wanted = f"tags.`digest.output.predictions` = '{scores['digest.evaluation.predictions']}'"
    (made_by,) = client.search_runs([road.run(road.evaluated).info.experiment_id], wanted)
    assert made_by.info.run_id == road.generated.run_id


def test_the_adapter_is_a_model_with_its_scores(road: Road) -> None:
    client = MlflowClient(road.trained.tracking_uri)
    experiment = client.get_experiment(road.run(road.trained).info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert (str(model.status), model.source_run_id, model.params["rank"]) == ("READY", road.trained.run_id, "2")
    assert "adapter_model.safetensors" in {one.path for one in client.list_logged_model_artifacts(model.model_id)}
    by_name = {metric.key: metric for metric in model.metrics or []}
    score = by_name["radgraph_partial"]
    assert score.value == pytest.approx(road.evaluated.facts["radgraph_partial/model"]["value"])
    assert score.run_id == road.evaluated.run_id and score.dataset_name == "references"


def test_one_command_makes_the_controls_too(road: Road) -> None:
    names = ("shuffled", "blank", "no_adapter", "nearest")
    settings = EvaluateSettings(
        predictions=road.folder / "tuned",
        references=road.folder / "data",
        output=road.folder / "controlled",
        generate_baselines=names,
        metrics=("radgraph",),
        radgraph="tiny",
        bootstrap_samples=50,
    )
    told: list[str] = []
    summary = runs.evaluate(settings, progress=lambda done, total, label: told.append(label))
    assert list(summary.result.systems) == ["model", *names, "most_frequent"]
    assert {f"{name}: studies" for name in names} | {"nearest: training images", "RadGraph"} <= set(told)
    logged = road.run(summary).data
    gap = summary.result.systems["model"]["image_reliance_gap"].value
    assert logged.metrics["image_reliance_gap"] == pytest.approx(gap)
    scores = json.loads((road.folder / "controlled/scores.json").read_text())
    assert scores["systems"]["model"]["image_reliance_gap"]["value"] == gap
    folder = road.folder / "mlartifacts" / summary.run_id / "artifacts"
    conditions = json.loads(dict(json.loads((folder / "conditions.json").read_text())["data"])["image_reliance_gap"])
    assert conditions["difference"] == "radgraph_partial of the model minus that of 'shuffled'"

    def texts(folder: str) -> list[str]:
        return pq.read_table(road.folder / folder / "predictions.parquet").column("text").to_pylist()

    assert texts("tuned-no-adapter") == texts("bare") != texts("tuned")
    training = {f"FINDINGS: {report} IMPRESSION: {report}" for report in REPORTS}
    assert set(texts("tuned-nearest")) <= training
    records = [json.loads((road.folder / f"tuned-{name}/generate.json").read_text()) for name in ("blank", "nearest")]
    assert [record["settings"]["max_new_tokens"] for record in records] == [8, 8]
    assert records[0]["inputs"]["adapter"] and records[1]["inputs"]["adapter"] is None
    again = runs.evaluate(settings)
    assert again.run_id == summary.run_id
    assert json.loads((road.folder / "tuned-blank/generate.json").read_text()) == records[0]


def test_controls_are_made_only_of_what_the_predictions_were_made_of(road: Road, tmp_path: Path) -> None:
    given = {"references": road.folder / "data", "output": tmp_path / "out", "tracking": UNTRACKED}
    (tmp_path / "table").mkdir()
    shutil.copy(road.folder / "tuned/predictions.parquet", tmp_path / "table/predictions.parquet")
    with pytest.raises(InputError, match=r"generate\.json: cannot be read"):
        runs.evaluate(EvaluateSettings(predictions=tmp_path / "table", generate_baselines=("blank",), **given))
    with pytest.raises(SettingsError, match=r"'no_adapter': checkpoint .* has no adapter"):
        runs.evaluate(EvaluateSettings(predictions=road.folder / "bare", generate_baselines=("no_adapter",), **given))
    shutil.copytree(road.folder / "tuned", tmp_path / "tuned")
    record = json.loads((tmp_path / "tuned/generate.json").read_text())
    record["inputs"]["adapter"] = "0" * 64
    (tmp_path / "tuned/generate.json").write_text(json.dumps(record))
    with pytest.raises(MismatchError, match="tuned-blank: adapter changed since"):
        runs.evaluate(EvaluateSettings(predictions=tmp_path / "tuned", generate_baselines=("blank",), **given))


def test_no_report_and_no_patient_is_in_the_store(road: Road) -> None:
    database = (road.folder / "mlflow.db").read_bytes()
    for word in (SECRET, "SUBJECT"):
        assert word.encode() not in database
        for path in (road.folder / "mlartifacts").rglob("*"):
            if path.is_file():
                assert word.encode() not in path.read_bytes(), path


def test_reports_are_kept_in_the_store_when_they_are_asked_for(road: Road, tmp_path: Path) -> None:
    there = TrackingSettings(uri=f"sqlite:///{tmp_path / 'mlflow.db'}", log_reports=True)
    page = runs.review(
        ReviewSettings(
            evaluation=road.folder / "scores", data=road.folder / "data", output=tmp_path / "page.html", tracking=there
        )
    )
    kept = {item.path for item in MlflowClient(page.tracking_uri).list_artifacts(page.run_id)}
    assert "page.html" in kept


def test_the_same_command_again_makes_no_second_run(road: Road) -> None:
    settings = GenerateSettings(
        input=road.folder / "data",
        output=road.folder / "tuned",
        adapter=road.folder / "train" / "adapter",
        max_new_tokens=8,
    )
    again = runs.generate(settings)
    assert again.run_id == road.generated.run_id
    assert again.result.predictions == 4
    with pytest.raises(OutputError, match="max_new_tokens"):
        runs.generate(settings.model_copy(update={"max_new_tokens": 9}))


def test_a_summary_is_json(road: Road) -> None:
    for summary in (road.ingested, road.trained, road.generated, road.evaluated, road.reviewed):
        values = json.loads(json.dumps(summary.as_dict(), allow_nan=False))
        assert values["command"] == summary.command
        assert values["run_id"] == summary.run_id


def test_a_folder_of_dicom_gets_reports_and_its_misfits_are_counted(road: Road, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(3):
        write_dicom(source / f"{number}.dcm", number)
    (source / "notes.txt").write_text("hello", encoding="utf-8")
    (source / "broken.dcm").write_bytes((source / "0.dcm").read_bytes()[:400])
    settings = GenerateSettings(
        input=source, output=tmp_path / "out", checkpoint=road.checkpoint, prompt=PROMPT, max_new_tokens=4
    )
    seen: list[str] = []
    summary = runs.generate(settings, progress=lambda done, total, label: seen.append(label))
    assert summary.facts["predictions"] == 3
    assert summary.facts["read"] == 5
    assert summary.facts["excluded"]["not-dicom"] >= 1
    assert sum(summary.facts["excluded"].values()) == 2
    assert pq.read_table(tmp_path / "out" / "predictions.parquet").num_rows == 3
    assert len(set(seen)) >= 2
    again = runs.generate(settings)
    assert again.run_id == summary.run_id
    assert again.facts["predictions"] == 3


def test_one_dicom_file_is_enough(road: Road, tmp_path: Path) -> None:
    write_dicom(tmp_path / "one.dcm", 1)
    settings = GenerateSettings(
        input=tmp_path / "one.dcm",
        output=tmp_path / "out",
        adapter=road.folder / "train" / "adapter",
        max_new_tokens=4,
        tracking=TrackingSettings(enabled=False),
    )
    summary = runs.generate(settings)
    assert (summary.facts["predictions"], summary.run_id, summary.tracking_uri) == (1, "", "")


def test_a_folder_without_any_image_is_an_error_with_its_reasons(road: Road, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("hello", encoding="utf-8")
    write_dicom(tmp_path / "in" / "knee.dcm", 1, part="KNEE")
    settings = GenerateSettings(input=tmp_path / "in", output=tmp_path / "out", checkpoint=road.checkpoint)
    with pytest.raises(InputError, match=r"none of 2 files became an image \(not-a-chest: 1, not-dicom: 1\)"):
        runs.generate(settings)
    store = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (failed,) = store.search_runs([store.get_experiment_by_name("cxrreport").experiment_id])
    assert failed.info.status == "FAILED"
    assert failed.data.tags["cxrreport.error"].startswith("InputError")


UNTRACKED = TrackingSettings(enabled=False)


def test_an_ingest_that_has_not_finished_is_not_taken_for_a_folder_of_dicom(road: Road, tmp_path: Path) -> None:
    shutil.copytree(road.folder / "data", tmp_path / "data")
    (tmp_path / "data" / "manifest.parquet").unlink()
    settings = GenerateSettings(
        input=tmp_path / "data", output=tmp_path / "out", checkpoint=road.checkpoint, tracking=UNTRACKED
    )
    with pytest.raises(ManifestError, match="not finished"):
        runs.generate(settings)


def test_what_does_not_belong_together_is_refused(road: Road, tmp_path: Path) -> None:
    adapter = road.folder / "train" / "adapter"
    given = {"input": road.folder / "data", "tracking": UNTRACKED}
    with pytest.raises(SettingsError, match="neither checkpoint nor adapter"):
        runs.generate(GenerateSettings(output=tmp_path / "a", **given))
    other = PromptSettings(instruction="describe")
    with pytest.raises(MismatchError, match="instruction"):
        runs.generate(GenerateSettings(output=tmp_path / "b", adapter=adapter, prompt=other, **given))
    padded = runs.ingest(
        IngestSettings(
            input=road.folder / "in" / "studies.csv",
            output=tmp_path / "padded",
            layout="table",
            resize="pad",
            tracking=UNTRACKED,
        )
    )
    with pytest.raises(MismatchError, match="resize"):
        runs.generate(GenerateSettings(input=padded.output, output=tmp_path / "c", adapter=adapter, tracking=UNTRACKED))
    shutil.copytree(adapter, tmp_path / "bare")
    (tmp_path / "bare" / "cxrreport.json").unlink()
    with pytest.raises(WeightsError, match=r"bare.*cxrreport\.json"):
        runs.generate(GenerateSettings(output=tmp_path / "d", adapter=tmp_path / "bare", **given))


def artifacts(road: Road, summary: runs.Summary) -> set[str]:
    root = road.folder / "mlartifacts" / summary.run_id / "artifacts"
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
