"""Real radiographs through the whole of `generate`, with the project's own tiny model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from cxrreport.cli import app

SHARED = Path(__file__).parents[2] / "shared" / "data" / "dicom"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two real chest radiographs among what a folder of DICOM may hold besides."""
    folder = tmp_path_factory.mktemp("dicom")
    for number, name in enumerate(("RG1_UNCR.dcm", "RG1_J2KR.dcm")):
        path = get_testdata_file(name, download=False)
        if path is None:
            pytest.skip(f"{name} of the package pydicom-data is not installed")
        # One image in two transfer syntaxes has one id: told apart here, as a second study.
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID += f".{number}"
        dataset.SOPInstanceUID += f".{number}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / name)
    shutil.copy(get_testdata_file("CT_small.dcm", download=False), folder / "ct.dcm")
    shutil.copy(get_testdata_file("reportsi.dcm", download=False), folder / "no-pixels.dcm")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_radiographs_get_a_report_and_the_rest_a_reason(folder, tmp_path):
    output = tmp_path / "reports"
    arguments = ["generate", "--input", str(folder), "--checkpoint", "tiny", "--output", str(output), "--no-track"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "phantoms" in result.output
    predictions = pq.read_table(output / "predictions.parquet").to_pylist()
    assert len(predictions) == 2
    assert all(one["text"] for one in predictions)
    assert len({one["text"] for one in predictions}) == 1, "the same pixels in two transfer syntaxes"
    ledger = {row["source"]: row["reason"] for row in pq.read_table(output / "ingested" / "ledger.parquet").to_pylist()}
    assert ledger == {"ct.dcm": "not-a-radiograph", "no-pixels.dcm": "no-pixels", "notes.txt": "not-dicom"}


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data/dicom is not there")
def test_every_shared_file_is_a_report_or_a_row(tmp_path):
    output = tmp_path / "reports"
    arguments = ["generate", "--input", str(SHARED), "--checkpoint", "tiny", "--output", str(output), "--no-track"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    kept = pq.read_table(output / "ingested" / "manifest.parquet").num_rows
    left_out = pq.read_table(output / "ingested" / "ledger.parquet").num_rows
    assert kept + left_out == len(list(SHARED.iterdir()))
    assert kept > 0
    assert pq.read_table(output / "predictions.parquet").num_rows > 0
