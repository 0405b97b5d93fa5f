"""A file system that fails for a moment, and files that change while they are read: neither is recorded."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydicom.uid import generate_uid

from cxrreport.dataset import Manifest
from cxrreport.errors import InputError, ManifestError
from cxrreport.ingestion import ingest as pipeline
from cxrreport.ingestion.ingest import ingest
from cxrreport.settings import IngestSettings

Make = Callable[..., Path]


def folder_of(root: Path, make_dataset: Make, write_dataset: Make, count: int = 6) -> Path:
    """DICOM files whose ids are in their headers only."""
    for number in range(count):
        ids = {"PatientID": f"p{number}", "StudyInstanceUID": generate_uid(), "SOPInstanceUID": generate_uid()}
        write_dataset(root / f"{number}.dcm", make_dataset(**ids))  # type: ignore[arg-type]
    return root


@pytest.fixture
def settings(
    tmp_path: Path, make_dataset: Make, write_dataset: Make, monkeypatch: pytest.MonkeyPatch
) -> IngestSettings:
    monkeypatch.setattr(pipeline, "STUDIES_PER_SHARD", 2)
    root = folder_of(tmp_path / "in", make_dataset, write_dataset)
    return IngestSettings(input=root, output=tmp_path / "out", require_report=False)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOENT, errno.ENOTCONN])
@pytest.mark.parametrize("stage", ["headers", "pixels"])
def test_an_error_of_the_file_system_fails_the_run_which_then_resumes(
    settings: IngestSettings, monkeypatch: pytest.MonkeyPatch, number: int, stage: str
) -> None:
    calls: list[str] = []
    opened = Path.open

    def failing(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.suffix == ".dcm":
            calls.append(path.name)
            if len(calls) == {"headers": 3, "pixels": 6 + 4}[stage]:
                raise OSError(number, "no connection", str(path))
        return opened(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing)
        with pytest.raises(
            InputError, match=r"\.dcm: no connection, after the file was listed; re-run the same command"
        ):
            ingest(settings)
    with pytest.raises(ManifestError):
        Manifest.open(settings.output)
    summary = ingest(settings)
    assert (summary.read, summary.kept, summary.left_out) == (6, 6, {})
    assert summary.resumed == (stage == "pixels")


def test_an_input_that_disappears_fails_the_run_at_once(settings: IngestSettings) -> None:
    moved = settings.input.with_name("elsewhere")
    done: list[int] = []

    def unplug(count: int, _total: int, label: str) -> None:
        if label == "studies":
            done.append(count)
            if count == 2:
                settings.input.rename(moved)

    with pytest.raises(InputError, match="the input is no longer there"):
        ingest(settings, unplug)
    assert max(done) == 2
    moved.rename(settings.input)
    assert ingest(settings).kept == 6


def test_swapped_files_are_not_stored_under_each_others_ids(settings: IngestSettings) -> None:
    one, other = settings.input / "4.dcm", settings.input / "5.dcm"

    def swap(count: int, total: int, label: str) -> None:
        if (label, count) == ("headers", total):
            aside = one.with_suffix(".aside")
            one.rename(aside)
            other.rename(one)
            aside.rename(other)

    with pytest.raises(InputError, match="another file has taken its place"):
        ingest(settings, swap)
    assert ingest(settings).kept == 6
    images = Manifest.open(settings.output).images.values()
    assert {image.source: image.patient_id for image in images} == {
        f"{number}.dcm": f"p{ {4: 5, 5: 4}.get(number, number) }" for number in range(6)
    }


def test_permissions_and_content_are_rows(settings: IngestSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    (settings.input / "0.dcm").write_bytes(b"no radiograph")
    opened = Path.open

    def refusing(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "1.dcm":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refusing)
    summary = ingest(settings)
    assert (summary.read, summary.kept, summary.left_out) == (6, 4, {"not-dicom": 1, "not-readable": 1})


def test_a_table_reads_below_its_root_only(settings: IngestSettings, tmp_path: Path) -> None:
    """Paths of a table may come from anyone: those that lead out are rows, whatever their spelling."""
    root = tmp_path / "table"
    (root / "below").mkdir(parents=True)
    shutil.copy(settings.input / "0.dcm", tmp_path / "secret.dcm")
    shutil.copy(settings.input / "1.dcm", root / "below" / "good.dcm")
    (root / "link").symlink_to(settings.input)  # a link is of the file system, which the user keeps
    images = {
        "../secret.dcm": "not-readable",
        str(tmp_path / "secret.dcm"): "not-readable",
        "below/../../secret.dcm": "not-readable",
        "link/../secret.dcm": "image-file-missing",  # `..` is taken off before the link is followed
        "gone.dcm": "image-file-missing",
        "below": "not-readable",
        ".": "not-readable",
        "..\\secret.dcm": "image-file-missing",
        "file:///etc/passwd": "image-file-missing",
        "~/secret.dcm": "image-file-missing",
        "./below/good.dcm": "",
        str(root / "below" / ".." / "link" / "2.dcm"): "",
    }
    lines = [f"{image},s{number},p{number},i{number}" for number, image in enumerate(images)]
    (root / "images.csv").write_text("\n".join(["image,study_id,patient_id,image_id", *lines]))
    summary = ingest(settings.model_copy(update={"input": root / "images.csv", "output": tmp_path / "o"}))
    rows = pq.read_table(tmp_path / "o" / "ledger.parquet").to_pylist()
    assert {row["study_id"]: row["reason"] for row in rows} == {
        f"s{number}": reason for number, reason in enumerate(images.values()) if reason
    }
    assert summary.read == len(images) and summary.kept == 2
    assert str(tmp_path) not in str(rows)
