"""Small files that ask for much memory: refused within a budget, whatever they state."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attack import bombs, workbook_bombs
from pydicom.uid import ExplicitVRLittleEndian

_SIDE = 1500
_READ = """
import json, resource, sys
from pathlib import Path
from cxrreport.errors import CxrReportError
from cxrreport.ingestion.dicom import read_radiograph
from cxrreport.ingestion.dicom.pixel_data import decoding
from cxrreport.ingestion.images import is_picture, read_picture
from cxrreport.storage import tables

tables.MAX_BYTES, tables.MAX_MEMORY, tables.MAX_ROW = 8 << 20, 24 << 20, 1 << 20
found = {}
for name in sys.argv[1:]:
    path = Path(name)
    Path("/proc/self/clear_refs").write_text("5")
    before = int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])
    try:
        if path.suffix == ".dcm":
            read_radiograph(path, max_pixels=3_000_000)
        elif is_picture(path):
            read_picture(path, max_pixels=3_000_000)
        else:
            tables.read_table(path)
        said = "kept"
    except CxrReportError as error:
        said = str(error).replace(name, "")
    decoding._HELPER.close()
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    decoder = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    found[path.name] = {"mib": (peak - before) / 1024, "decoder": decoder / 1024, "said": said}
print(json.dumps(found))
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures memory by /proc")


def read_all(files: list[Path]) -> dict[str, dict[str, Any]]:
    """Peak memory above that before, MiB, of reading each, and of the largest decoder process so far."""
    done = subprocess.run([sys.executable, "-c", _READ, *map(str, files)], capture_output=True, text=True, check=True)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def test_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, note: Any) -> None:
    monkeypatch.setattr(bombs, "SIDE", _SIDE)
    made = {name: make for name, make in bombs.PICTURES.items() if name not in {"too-large.png", "text.png"}}
    for name, make in made.items():
        (tmp_path / name).write_bytes(make())
    for name, one in read_all([tmp_path / name for name in made]).items():
        note(file=name, **one)
        assert one["said"] != "kept", name
        # 2 million pixels: 16 bytes for each in the decoder, and what numpy and pydicom take.
        assert one["mib"] < 140 and one["decoder"] < 64 + 16 * 3 + 140, (name, one)


def test_tables(tmp_path: Path, note: Any) -> None:
    bombs.gzipped(tmp_path / "commas.csv.gz", "study_id,text\n", "1,\n", 200)
    bombs.gzipped(tmp_path / "one-row.csv.gz", "study_id,text\n", ",", 7)
    bombs.gzipped(tmp_path / "quotes.csv.gz", 'study_id,text\n1,"', '","\n","', 7)
    bombs.gzipped(tmp_path / "cells.csv.gz", ",".join(f"c{i}" for i in range(99)) + "\n", "1," * 98 + "1\n", 7)
    bombs.parquet(tmp_path / "long.parquet", 5_000_000, "a")
    bombs.parquet(tmp_path / "values.parquet", 2000, "a" * 1_000_000)
    bombs.parquet_of_pages(tmp_path / "page.parquet", 200)
    bombs.parquet_of_pages(tmp_path / "page-that-lies.parquet", 200, stated=100)
    (tmp_path / "wide.csv").write_text("study_id,text\n1," + "\U0001f600" + "a" * (7 << 20) + "\n")
    (tmp_path / "nested.jsonl").write_text('{"a":[' + "[]," * 300_000 + "[]]}\n")
    (tmp_path / "one-line.jsonl").write_text(json.dumps({"a": ["a"] * 400_000}))
    files = sorted(path for path in tmp_path.iterdir() if path.is_file())
    assert len(files) == 11
    for name, one in read_all(files).items():
        note(file=name, **one)
        assert any(
            word in one["said"] for word in ("MiB of text", "MiB of memory", "a row of more than", "takes more memory")
        ), (name, one)
        assert one["mib"] < 90, (name, one)


def test_workbooks(tmp_path: Path, note: Any) -> None:
    expected = workbook_bombs.write(tmp_path, within=4 << 20, beyond=12 << 20)
    found = read_all([tmp_path / name for name in expected])
    for name, one in found.items():
        note(file=name, **one)
        assert (expected[name] or "kept") in one["said"], (name, one)
        assert one["mib"] < 90, (name, one)
    assert all(path.stat().st_size < 1 << 20 for path in tmp_path.iterdir())


def test_large_valid_input_is_read(tmp_path: Path) -> None:
    """The budgets are those of radiographs, not of test files: the limits of items and values leave room."""
    whole = bombs.dicom(bytes(range(64)), ExplicitVRLittleEndian, side=8)
    private = b"".join(b"\x09\x00" + bytes([n % 256, 16 + n // 256]) + b"LO\x04\0text" for n in range(20_000))
    at = whole.index(b"\x10\x00\x20\x00")
    (tmp_path / "a.dcm").write_bytes(whole[:at] + private + whole[at:])
    (tmp_path / "t.csv").write_text("study_id,text\n" + "".join(f"{n},{'word ' * 40}\n" for n in range(20_000)))
    found = read_all([tmp_path / "a.dcm", tmp_path / "t.csv"])
    assert [one["said"] for one in found.values()] == ["kept"] * 2
