"""Reports of a folder of DICOM while it is ingested: the same as in two commands, resumed, extended, shared out."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pydicom
import pytest
from plain_studies import write_studies, write_study

from cxrreport.errors import InferenceError, SettingsError
from cxrreport.inference.completion import GenerateSummary
from cxrreport.inference.decoding.forward import ForwardPasses
from cxrreport.inference.generate import generate
from cxrreport.ingestion.ingest import ingest
from cxrreport.settings import CheckpointSettings, GenerateSettings, IngestSettings, PromptSettings

COUNT = 11


def settings(source: Path, output: Path, checkpoint: Path, **changes: Any) -> GenerateSettings:
    given = {"checkpoint": CheckpointSettings(name=str(checkpoint), precision="float32", device="cpu")}
    sizes = {"shard_size": 3, "batch_size": 2, "max_new_tokens": 4}
    return GenerateSettings(input=source, output=output, **given | sizes | changes)  # type: ignore[arg-type]


def run(*given: Any, progress: Any = None, **changes: Any) -> GenerateSummary:
    return generate(settings(*given, **changes), progress or (lambda done, total, label: None))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Eleven studies, a text file, and a file whose pixels were cut off."""
    folder = write_studies(tmp_path / "in", COUNT)
    (folder / "notes.txt").write_text("hello", encoding="utf-8")
    whole = (folder / "4.dcm").read_bytes()
    (folder / "4.dcm").write_bytes(whole[:-3000])
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the studies that the model reads."""
    studies: list[str] = []
    original = ForwardPasses.read_prompts

    def reading(self: Any, requests: Any, *args: Any, **options: Any) -> Any:
        studies.extend(one.request.study_id for one in requests)
        return original(self, requests, *args, **options)

    monkeypatch.setattr(ForwardPasses, "read_prompts", reading)
    return studies


def predictions(output: Path) -> list[dict[str, Any]]:
    """All rows; the last digits of a probability depend on the batch that a text was in."""
    return [
        row | {name: round(row[name], 4) for name in ("mean_logprob", "min_logprob")}
        for row in pq.read_table(output / "predictions.parquet").to_pylist()
    ]


def made(output: Path) -> dict[str, Any]:
    """Everything that a reader of the output sees, without places and times."""
    manifest = pq.read_table(output / "ingested/manifest.parquet")
    log = pq.read_table(output / "ingested/ledger.parquet").to_pylist()
    record = json.loads((output / "generate.json").read_text())
    return {
        "predictions": predictions(output),
        "failed": sorted(row["study_id"] for row in pq.read_table(output / "failed.parquet").to_pylist()),
        "images": manifest.drop_columns(["shard", "shard_row"]).to_pylist(),
        "digest": manifest.schema.metadata[b"cxrreport.digest"],
        "data": record["inputs"]["data"],
        "log": log,
    }


def test_the_same_as_ingest_and_then_generate(source: Path, tmp_path: Path, generation_checkpoint_folder: Path) -> None:
    written, waited = threading.Event(), []

    def progress(done: int, _total: int, label: str) -> None:
        if label == "studies" and done:
            written.set()
        if (label, done) == ("ingesting studies", COUNT):  # the thread that reads images waits for the first text
            waited.append(written.wait(120))

    summary = run(source, tmp_path / "out", generation_checkpoint_folder, progress=progress)
    assert (summary.studies, summary.predictions, summary.failed) == (COUNT, COUNT - 1, 1)
    assert waited == [True]
    images = IngestSettings(
        input=source, output=tmp_path / "data", layout="folder", resolution=224, require_report=False
    )
    ingested = ingest(images)
    two = run(tmp_path / "data", tmp_path / "two", generation_checkpoint_folder, split=None)
    assert predictions(tmp_path / "out") == predictions(tmp_path / "two")
    assert two.predictions == summary.predictions
    assert made(tmp_path / "out")["digest"].decode() == ingested.digest == made(tmp_path / "out")["data"]
    log = pq.read_table(tmp_path / "data/ledger.parquet").to_pylist()
    assert made(tmp_path / "out")["log"] == log
    assert len(log) == 2


def test_a_stopped_run_resumes(
    source: Path, tmp_path: Path, generation_checkpoint_folder: Path, read: list[str]
) -> None:
    given = (source, tmp_path / "stopped", generation_checkpoint_folder)

    def stop(done: int, total: int, label: str) -> None:
        if label == "studies" and done > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(*given, progress=stop)
    before = len(read)
    assert before < COUNT - 1
    summary = run(*given)
    assert summary.resumed > 0
    assert len(read) - before == COUNT - 1 - summary.resumed
    run(source, tmp_path / "whole", generation_checkpoint_folder)
    assert made(tmp_path / "stopped") == made(tmp_path / "whole")


def test_new_files_are_said_and_taken_in_on_request(
    source: Path, tmp_path: Path, generation_checkpoint_folder: Path, read: list[str]
) -> None:
    given = (source, tmp_path / "out", generation_checkpoint_folder)
    assert run(*given).new_files == 0
    write_study(source / "night/20.dcm", 20)
    write_study(source / "night/0.dcm", 105)  # sorts among the old ones
    second = write_study(source / "second.dcm", 7, grey=900)
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = "1.2.3.7.0"
    second.save_as(source / "second.dcm", enforce_file_format=True)
    before = made(tmp_path / "out")
    again = run(*given)
    assert again.new_files == 3
    assert made(tmp_path / "out") == before
    read.clear()
    updated = run(*given, update=True)
    assert set(read) <= {"1.2.3.20", "1.2.3.105", "1.2.3.7"}
    assert updated.new_files == 0
    assert updated.predictions == COUNT + 1
    assert run(*given).new_files == 0
    read.clear()
    assert run(*given, update=True).predictions == COUNT + 1
    assert read == []
    run(source, tmp_path / "whole", generation_checkpoint_folder)
    assert made(tmp_path / "out") == made(tmp_path / "whole")


def test_studies_that_are_gone_leave(source: Path, tmp_path: Path, generation_checkpoint_folder: Path) -> None:
    given = (source, tmp_path / "out", generation_checkpoint_folder)
    run(*given)
    (source / "2.dcm").unlink()
    write_study(source / "30.dcm", 30)
    run(*given, update=True)
    run(source, tmp_path / "whole", generation_checkpoint_folder)
    assert made(tmp_path / "out") == made(tmp_path / "whole")


def test_an_array_of_jobs_makes_the_same(
    source: Path, tmp_path: Path, generation_checkpoint_folder: Path, read: list[str]
) -> None:
    run(source, tmp_path / "alone", generation_checkpoint_folder)
    given = (source, tmp_path / "out", generation_checkpoint_folder)
    parts = [run(*given, shard=f"{number}/2") for number in (1, 2)]
    assert sum(part.studies for part in parts) == COUNT
    read.clear()
    together = run(*given)
    assert read == []
    assert together.resumed == COUNT - 1
    assert made(tmp_path / "out") == made(tmp_path / "alone")
    assert not (tmp_path / "out.shards").exists()
    write_study(source / "21.dcm", 21)
    for number in (1, 2):
        run(*given, shard=f"{number}/2", update=True)
    assert read == ["1.2.3.21"]
    run(*given, update=True)
    assert read == ["1.2.3.21"]
    shutil.rmtree(tmp_path / "alone")
    run(source, tmp_path / "alone", generation_checkpoint_folder)
    assert made(tmp_path / "out") == made(tmp_path / "alone")


def test_failures_end_the_run_when_there_are_too_many(
    source: Path, tmp_path: Path, generation_checkpoint_folder: Path
) -> None:
    given = (source, tmp_path / "out", generation_checkpoint_folder)
    with pytest.raises(InferenceError, match="1 studies or files could not be read, more than max_failures: 0"):
        run(*given, max_failures=0)
    summary = run(*given, max_failures=1)
    assert summary.failed == 1
    (failed,) = pq.read_table(tmp_path / "out/failed.parquet").to_pylist()
    assert failed["study_id"] == "1.2.3.4"
    assert failed["reason"] == "bad-pixel-data"
    assert asdict(summary)["studies"] == COUNT


def test_workers_read_the_files(source: Path, tmp_path: Path, generation_checkpoint_folder: Path) -> None:
    run(source, tmp_path / "one", generation_checkpoint_folder)
    run(source, tmp_path / "two", generation_checkpoint_folder, workers=2)
    assert made(tmp_path / "one") == made(tmp_path / "two")


def test_the_prior_study_of_a_patient_in_the_folder_is_shown(
    source: Path, tmp_path: Path, generation_checkpoint_folder: Path
) -> None:
    """Dates of the headers order the studies of a patient, which the whole folder must be read for."""
    for number, date in ((2, "20190314"), (3, "20190413")):
        dicom = pydicom.dcmread(source / f"{number}.dcm")
        dicom.PatientID, dicom.StudyDate, dicom.StudyTime = "P2", date, "0900"
        dicom.save_as(source / f"{number}.dcm")
    prompt = PromptSettings(prior="report+image", pool=2)
    run(source, tmp_path / "out", generation_checkpoint_folder, prompt=prompt)
    shown = {row["study_id"]: row for row in predictions(tmp_path / "out") if row["prior_study_id"]}
    assert shown.keys() == {"1.2.3.3"} and shown["1.2.3.3"]["prior_study_id"] == "1.2.3.2"
    assert shown["1.2.3.3"]["prompt"].endswith(" images: frontal, prior. prior study, 30 days earlier:")
    assert len(shown["1.2.3.3"]["image_sha256"]) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"limit": 2, "shard": "1/2"},
        {"baseline": "blank", "update": True},
        {"prompt": PromptSettings(prior="image"), "update": True},
    ],
)
def test_what_needs_all_studies_first_is_said(
    source: Path, tmp_path: Path, generation_checkpoint_folder: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError, match="needs all studies"):
        run(source, tmp_path / "out", generation_checkpoint_folder, **changes)
