"""What `runs.generate` makes of DICOM files, and which inputs it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from small_pipeline import PROMPT, UNTRACKED, Pipeline

from cxrreport import runs
from cxrreport.errors import InputError, ManifestError, MismatchError, SettingsError, WeightsError
from cxrreport.settings import (
    GenerateSettings,
    IngestSettings,
    PromptSettings,
    TrackingSettings,
)


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


def test_reports_for_a_folder_of_dicom_with_excluded_files_counted(pipeline: Pipeline, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(3):
        write_dicom(source / f"{number}.dcm", number)
    (source / "notes.txt").write_text("hello", encoding="utf-8")
    (source / "broken.dcm").write_bytes((source / "0.dcm").read_bytes()[:400])
    settings = GenerateSettings(
        input=source, output=tmp_path / "out", checkpoint=pipeline.checkpoint, prompt=PROMPT, max_new_tokens=4
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


def test_one_dicom_file_is_an_input(pipeline: Pipeline, tmp_path: Path) -> None:
    write_dicom(tmp_path / "one.dcm", 1)
    settings = GenerateSettings(
        input=tmp_path / "one.dcm",
        output=tmp_path / "out",
        adapter=pipeline.folder / "train" / "adapter",
        max_new_tokens=4,
        tracking=TrackingSettings(enabled=False),
    )
    summary = runs.generate(settings)
    assert (summary.facts["predictions"], summary.run_id, summary.tracking_uri) == (1, "", "")


def test_a_folder_without_any_image_is_an_error_with_its_reasons(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("hello", encoding="utf-8")
    write_dicom(tmp_path / "in" / "knee.dcm", 1, part="KNEE")
    settings = GenerateSettings(input=tmp_path / "in", output=tmp_path / "out", checkpoint=pipeline.checkpoint)
    with pytest.raises(InputError, match=r"none of 2 files became an image \(not-a-chest: 1, not-dicom: 1\)"):
        runs.generate(settings)
    store = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (failed,) = store.search_runs([store.get_experiment_by_name("cxrreport").experiment_id])
    assert failed.info.status == "FAILED"
    assert failed.data.tags["cxrreport.error"].startswith("InputError")


def test_an_unfinished_ingest_is_not_read_as_a_folder_of_dicom(pipeline: Pipeline, tmp_path: Path) -> None:
    shutil.copytree(pipeline.folder / "data", tmp_path / "data")
    (tmp_path / "data" / "manifest.parquet").unlink()
    settings = GenerateSettings(
        input=tmp_path / "data", output=tmp_path / "out", checkpoint=pipeline.checkpoint, tracking=UNTRACKED
    )
    with pytest.raises(ManifestError, match="not finished"):
        runs.generate(settings)


def test_what_does_not_belong_together_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    adapter = pipeline.folder / "train" / "adapter"
    given = {"input": pipeline.folder / "data", "tracking": UNTRACKED}
    with pytest.raises(SettingsError, match="neither checkpoint nor adapter"):
        runs.generate(GenerateSettings(output=tmp_path / "a", **given))
    other = PromptSettings(instruction="describe")
    with pytest.raises(MismatchError, match="instruction"):
        runs.generate(GenerateSettings(output=tmp_path / "b", adapter=adapter, prompt=other, **given))
    padded = runs.ingest(
        IngestSettings(
            input=pipeline.folder / "in" / "studies.csv",
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
