"""One bad file, row or column costs itself only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cxrreport.errors import InputError, RefusedImage
from cxrreport.ingestion.images import read_picture
from cxrreport.ingestion.ingest import ingest
from cxrreport.settings import IngestSettings
from cxrreport.settings.tracking import TrackingSettings
from cxrreport.storage.tables import read_text_table

Make = Callable[..., Any]


def run(root: Path, output: Path, **settings: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    summary = ingest(IngestSettings(input=root, output=output, require_report=False, **settings))
    kept = pq.read_table(output / "manifest.parquet").to_pylist()
    excluded = pq.read_table(output / "ledger.parquet").to_pylist()
    assert summary.read == len(kept) + len(excluded)
    return kept, excluded


def write_picture(path: Path, seed: int = 0, size: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, size)).astype(np.uint8)).save(path)
    return path


CRASHING = """
import os, sys
from pathlib import Path
from cxrreport.ingestion import study
from cxrreport.ingestion.ingest import ingest
from cxrreport.settings import IngestSettings

read = study.read_radiograph

def crash(path, **options):  # also in the workers, which import this file
    if b"CRASH" in path.read_bytes():
        os._exit(1)
    return read(path, **options)

study.read_radiograph = crash

if __name__ == "__main__":
    settings = IngestSettings(input=Path(sys.argv[1]), output=Path(sys.argv[2]), workers=2, require_report=False)
    print(ingest(settings).kept)
"""


@pytest.mark.parametrize("crashing", [(0,), (0, 1), (0, 1, 2)])
def test_a_copy_is_tried_after_a_decoder_has_crashed(
    make_dataset: Make, write_dataset: Make, tmp_path: Path, crashing: tuple[int, ...]
) -> None:
    for number in range(3):
        same = {
            "SOPInstanceUID": "1.1",
            "StudyInstanceUID": "1",
            "Manufacturer": "CRASH" if number in crashing else "X",
        }
        write_dataset(tmp_path / f"in/{number}.dcm", make_dataset(**same))
    write_dataset(tmp_path / "in/other.dcm", make_dataset(SOPInstanceUID="1.2", StudyInstanceUID="1"))
    (tmp_path / "crashing.py").write_text(CRASHING)
    command = [sys.executable, str(tmp_path / "crashing.py"), str(tmp_path / "in"), str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True)
    kept = pq.read_table(tmp_path / "out/manifest.parquet").to_pylist()
    excluded = pq.read_table(tmp_path / "out/ledger.parquet").to_pylist()
    assert len(kept) == 1 and len(kept) + len(excluded) == 4
    assert kept[0]["image_id"] == ("1.2" if len(crashing) == 3 else "1.1")
    died = [row for row in excluded if row["reason"] == "bad-pixel-data"]
    assert len(died) <= len(crashing) and all("died" in row["detail"] for row in died)


def test_rows_of_a_table_without_image_or_ids(make_dataset: Make, write_dataset: Make, tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / "b.png", 1)
    write_dataset(tmp_path / "c.dcm", make_dataset(StudyInstanceUID="1.5", PatientID="P5"))
    rows = ["a.png,,", "b.png,S2,", ",S3,P3", "gone.png,,", "c.dcm,,", f"{'x' * 300}.png,4,4", "a.png/b.png,5,5"]
    (tmp_path / "table.csv").write_text("\n".join(["image,study_id,patient_id", *rows]))
    kept, excluded = run(tmp_path / "table.csv", tmp_path / "out")
    kept_ids = {row["source"]: (row["study_id"], row["patient_id"]) for row in kept}
    assert kept_ids == {"a.png": ("a", "a"), "b.png": ("S2", "S2"), "c.dcm": ("1.5", "P5")}
    notes = {row["source"]: {note for note in row["notes"] if "missing" in note} for row in kept}
    assert notes["a.png"] == {"study-id-missing", "patient-id-missing"} and notes["b.png"] == {"patient-id-missing"}
    assert [(row["source"][:11], row["reason"], row["study_id"]) for row in excluded] == [
        ("", "image-file-missing", "S3"),
        ("a.png/b.png", "image-file-missing", "5"),
        ("gone.png", "image-file-missing", ""),
        ("x" * 11, "not-readable", "4"),
    ]


def test_one_picture_under_two_names_is_one_patient(make_dataset: Make, write_dataset: Make, tmp_path: Path) -> None:
    for name in ("p1/s1/a.png", "p2/s1/b.png", "p3/c.PNG"):
        write_picture(tmp_path / "in" / name)
    write_picture(tmp_path / "in/p4/d.png", 1)  # of the same size, other content
    unnamed = make_dataset(SOPInstanceUID=None, StudyInstanceUID=None, PatientID=None)
    for name in ("x.dcm", "y.dcm"):
        write_dataset(tmp_path / "in" / name, unnamed)
    (tmp_path / "reports.csv").write_text("study_id,findings\np2/s1,Clear.\n")
    kept, excluded = run(tmp_path / "in", tmp_path / "out", reports=tmp_path / "reports.csv")
    assert sorted(row["source"] for row in kept) == ["p2/s1/b.png", "p4/d.png", "x.dcm"]  # the one with a report
    assert [row["reason"] for row in excluded] == ["duplicate-image"] * 3


def test_columns_of_one_name_matter_only_if_they_are_used(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    head, row = "image,study_id,patient_id,Note,note,findings,", "a.png,1,1,x,y,Clear.,"
    (tmp_path / "table.csv").write_text(f"{head}remark,Remark\n{row}x,\n")
    assert len(run(tmp_path / "table.csv", tmp_path / "out")[0]) == 1
    for name in ("Findings", "patient id", "IMAGE", "view,view", "split,Split", "report,Report", "Image_ID,image id"):
        (tmp_path / "other.csv").write_text(f"{head}{name}\n{row}{',' * name.count(',')}\n")
        with pytest.raises(InputError, match="several columns are named"):
            run(tmp_path / "other.csv", tmp_path / "other")
    (tmp_path / "a.jsonl").write_text('{"uid": "1", "a": 1, "A": 2}\n{"uid": "2", "b": 1}\n')
    assert read_text_table(tmp_path / "a.jsonl") == [{"uid": "1"}, {"uid": "2", "b": "1"}]
    with pytest.raises(InputError, match="several columns are named a"):
        read_text_table(tmp_path / "a.jsonl", optional=("a",))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_picture_without_permission_is_not_readable(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")
    path.chmod(0)
    with pytest.raises(RefusedImage, match="not-readable"):
        read_picture(path, max_pixels=10**6)


def test_errors_of_the_file_system_and_of_content_are_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_picture(tmp_path / "a.png", size=200)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(RefusedImage, match="bad-pixel-data"):
        read_picture(path, max_pixels=10**6)

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cxrreport.ingestion.images.picture.Image.open", denied)
    with pytest.raises(RefusedImage, match="not-readable: Permission denied"):
        read_picture(path, max_pixels=10**6)


@pytest.mark.parametrize(
    ("given", "expanded"),
    [
        ("~/runs", "{home}/runs"),
        ("sqlite:///~/mlflow.db", "sqlite:///{home}/mlflow.db"),
        ("file://~/runs", "file://{home}/runs"),
        ("sqlite:////data/~x.db", "sqlite:////data/~x.db"),
        ("https://me:pa$$word~@host", "https://me:pa$$word~@host"),
        ("databricks", "databricks"),
    ],
)
def test_the_home_folder_in_a_tracking_uri(given: str, expanded: str) -> None:
    assert TrackingSettings(uri=given).uri == expanded.format(home=Path.home())
