"""The decoder that may take its process down: it works, it says no, and it comes back after it has died."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from cxrreport.errors import PixelError, ProcessError
from cxrreport.ingestion.dicom.pixel_data import decoder_process, decoding
from cxrreport.ingestion.dicom.pixel_data.decoder_process import DecoderProcess
from cxrreport.ingestion.dicom.pixel_data.decoding import decode_encapsulated

OPTIONS = {
    "number_of_frames": 1,
    "samples_per_pixel": 1,
    "photometric_interpretation": "MONOCHROME2",
    "pixel_representation": 0,
    "pixel_keyword": "PixelData",
}


def test_the_helper_decodes_refuses_and_restarts(
    pydicom_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = pydicom.dcmread(pydicom_file("MR_small_jpeg_ls_lossless.dcm"))
    syntax, data = str(dataset.file_meta.TransferSyntaxUID), dataset.PixelData
    options = OPTIONS | {
        "rows": dataset.Rows,
        "columns": dataset.Columns,
        "bits_allocated": dataset.BitsAllocated,
        "bits_stored": dataset.BitsStored,
        "pixel_representation": dataset.PixelRepresentation,
    }
    here = decode_encapsulated(syntax, "pyjpegls", data, options)
    helper = DecoderProcess()
    there = helper.decode(syntax, "gdcm", data, options)
    assert np.array_equal(here, there) and there.dtype == here.dtype
    with pytest.raises(PixelError, match="cannot be decoded"):
        helper.decode(syntax, "gdcm", data[:60], options)
    first = helper._process
    assert first is not None and first.poll() is None

    first.kill()  # as gdcm does to itself
    assert np.array_equal(helper.decode(syntax, "gdcm", data, options), here)
    assert helper._process is not None and helper._process.pid != first.pid

    with monkeypatch.context() as patch:
        patch.setattr(decoder_process, "_samples", lambda _: -61e6)  # a second for each million
        with pytest.raises(PixelError, match="crashed or took too long"):
            for _ in range(100):
                helper.decode(syntax, "gdcm", data, options)
    assert np.array_equal(helper.decode(syntax, "gdcm", data, options), here)

    child = os.fork()  # the pipes of the parent are not the child's
    if child == 0:
        same = np.array_equal(helper.decode(syntax, "gdcm", data, options), here)
        helper.close()
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(helper.decode(syntax, "gdcm", data, options), here)
    helper.close()
    helper.close()


def test_the_working_folder_does_not_shadow_modules_of_the_helper(
    pydicom_file: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDCM imports `dl` if there is one; where the working folder had it, each compressed image counted as damaged."""
    (tmp_path / "dl").mkdir()
    (tmp_path / "queue.py").write_text("raise ImportError")
    monkeypatch.chdir(tmp_path)
    dataset = pydicom.dcmread(pydicom_file("MR_small_jpeg_ls_lossless.dcm"))
    monkeypatch.setattr(decoding, "_HELPER", DecoderProcess())
    assert decoding.decode(dataset, dataset.Rows, dataset.Columns).shape == (dataset.Rows, dataset.Columns)


def test_a_helper_that_does_not_start_is_no_damaged_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The kind is an environment that is not in order: no file is to be counted for it."""
    (tmp_path / "pydicom.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ProcessError, match=r"does not start \(RuntimeError: not this one\); run 'python -m cxrreport"):
        DecoderProcess().decode("1.2.840.10008.1.2.5", "pydicom", b"", OPTIONS | {"rows": 1, "columns": 1})
