"""Annotations that are kept between runs and shared by processes."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cxrreport.errors import OutputError
from cxrreport.evaluation.radgraph.annotator import RadGraphAnnotator

pytestmark = pytest.mark.stock("radgraph", "transformers")


def test_cache_gives_the_same_and_holds_no_text(
    archive: Path, annotator: RadGraphAnnotator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ["There is a small left pleural effusion.", "No pneumothorax.", "No PNEUMOTHORAX."]
    file = tmp_path / "deep" / "annotations.sqlite"
    first = RadGraphAnnotator(archive, device="cpu", cache=file).annotate(wanted)
    again = RadGraphAnnotator(archive, device="cpu", cache=file)
    monkeypatch.setattr(again, "_graphs", lambda texts: pytest.fail("annotated again"))
    assert first == again.annotate(wanted) == annotator.annotate(wanted)
    assert b"effusion" not in file.read_bytes().lower()


def test_cache_does_not_mix_weights(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(archive, folder)
    state = torch.load(folder / "weights.th", weights_only=True)
    torch.save({name: torch.zeros_like(tensor) for name, tensor in state.items()}, folder / "weights.th")
    file = tmp_path / "annotations.sqlite"
    text = ["There is no pneumothorax."]
    assert RadGraphAnnotator(archive, device="cpu", cache=file).annotate(text)[0].entities
    assert not RadGraphAnnotator(folder, device="cpu", cache=file).annotate(text)[0].entities


def test_two_processes_share_a_cache(archive: Path, annotator: RadGraphAnnotator, tmp_path: Path) -> None:
    file = tmp_path / "annotations.sqlite"
    program = (
        "import sys; from pathlib import Path\n"
        "from cxrreport.storage.result_cache import ResultCache\n"
        "cache = ResultCache(Path(sys.argv[1]), 'maker', 'graphs')\n"
        "for n in range(150):\n"
        "    cache.write({f'text {n}': [(0, n, 'label', [])]})\n"
        "    assert cache.read([f'text {n}'])\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", program, str(file)], stderr=subprocess.PIPE) for _ in range(2)]
    for run in runs:
        assert run.communicate(timeout=60)[1] == b"" and run.returncode == 0
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT count(*) FROM graphs").fetchone() == (150,)


def test_a_cache_that_fails_in_use_only_costs_time(
    archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "annotations.sqlite"
    annotator = RadGraphAnnotator(archive, device="cpu", cache=file)
    file.write_text("no data base " * 100)
    assert annotator.annotate(["No pneumothorax."])[0].entities
    assert "computed again" in caplog.text and "not stored" in caplog.text
    assert "pneumothorax" not in caplog.text.lower()


def test_a_file_that_is_not_a_cache(archive: Path, tmp_path: Path) -> None:
    file = tmp_path / "annotations.sqlite"
    file.write_text("no data base " * 100)
    with pytest.raises(OutputError, match=r"annotations\.sqlite"):
        RadGraphAnnotator(archive, device="cpu", cache=file)
