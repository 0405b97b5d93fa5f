"""Atomic files are complete or absent; an output folder is locked and bound to the settings that created it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxrreport.errors import OutputError
from cxrreport.storage.atomic_files import PARTIAL, atomic_path, write_json
from cxrreport.storage.output_folder import output_folder


def test_atomic_path_replaces_only_when_the_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "picture.png"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == ".png"
        temporary.write_bytes(b"one")
        assert not target.exists()
    assert target.read_bytes() == b"one"
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("stopped")
    assert target.read_bytes() == b"one"
    assert [entry.name for entry in target.parent.iterdir()] == ["picture.png"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O: No space left on device (28)")]
)
def test_full_disk_is_an_output_error_that_names_the_file(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(OutputError, match=r"out\.bin: the disk is full"), atomic_path(tmp_path / "out.bin") as path:
        path.write_bytes(b"half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_block_pass_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "out.bin"):
        (tmp_path / "not there").read_bytes()


def test_folder_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"), atomic_path(tmp_path / "file" / "out.bin"):
        pass
    with (
        pytest.raises(OutputError, match="must be a folder"),
        output_folder(tmp_path / "file", command="ingest", settings={}),
    ):
        pass


def test_write_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1, 2.5], "name": "é"})
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"x": [1, 2.5], "name": "é"}


def test_the_same_settings_resume_and_others_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with output_folder(out, command="ingest", settings={"resolution": 224, "workers": 1}) as folder:
        assert folder.fresh and not folder.finished
        folder.update(run_id="7")
        (out / f"{PARTIAL}left-behind").write_bytes(b"half")
    with output_folder(out, command="ingest", settings={"resolution": 224, "workers": 2}) as folder:
        assert not folder.fresh and not folder.finished and folder.record["run_id"] == "7"
        assert not (out / f"{PARTIAL}left-behind").exists()
        folder.finish(kept=3)
    with output_folder(out, command="ingest", settings={"resolution": 224, "workers": 2}) as folder:
        assert folder.finished and folder.record["kept"] == 3 and folder.record["run_id"] == "7"
    with (
        pytest.raises(OutputError, match="resolution was 224 and is 448"),
        output_folder(out, command="ingest", settings={"resolution": 448}),
    ):
        pass
    with pytest.raises(OutputError, match=r"contains no train\.json"), output_folder(out, command="train", settings={}):
        pass


def test_a_run_that_fails_at_once_leaves_the_folder_usable(tmp_path: Path) -> None:
    def fail(number: int, *, made: str = "") -> None:
        with output_folder(tmp_path / "out", command="ingest", settings={"input": number}) as folder:
            if made:
                (folder.path / made).write_text("")
            raise KeyboardInterrupt

    for number in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            fail(number)
    with pytest.raises(KeyboardInterrupt):
        fail(3, made="ledger.parquet")
    with pytest.raises(OutputError, match="input"):
        fail(4)


def test_foreign_content_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match=r"thesis\.tex"), output_folder(tmp_path, command="ingest", settings={}):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "x" and not (tmp_path / "ingest.json").exists()


def test_broken_state_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ingest.json").write_text("{")
    with pytest.raises(OutputError, match="cannot be read"), output_folder(tmp_path, command="ingest", settings={}):
        pass


def test_second_run_is_refused_while_the_first_works(tmp_path: Path) -> None:
    first = output_folder(tmp_path, command="ingest", settings={})
    second = output_folder(tmp_path, command="ingest", settings={})
    with first, pytest.raises(OutputError, match=f"process {os.getpid()}"), second:
        pass
    with output_folder(tmp_path, command="ingest", settings={}):
        pass


def test_lock_of_a_killed_process_does_not_block(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from cxrreport.storage.output_folder import output_folder\n"
        "with output_folder(Path(sys.argv[1]), command='ingest', settings={}):\n"
        "    print('in', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "in\n"
    with (
        pytest.raises(OutputError, match=f"process {child.pid}"),
        output_folder(tmp_path, command="ingest", settings={}),
    ):
        pass
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=10)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            with output_folder(tmp_path, command="ingest", settings={}):
                return
        except OutputError:
            time.sleep(0.05)
    pytest.fail("the lock of a dead process blocks")


def test_a_folder_with_former_names_of_settings_resumes(tmp_path: Path) -> None:
    with output_folder(tmp_path / "out", command="generate", settings={"control": "blank", "seed": 1}):
        pass
    with output_folder(tmp_path / "out", command="generate", settings={"baseline": "blank", "seed": 1}) as folder:
        assert not folder.fresh
    with (
        pytest.raises(OutputError, match="baseline was"),
        output_folder(tmp_path / "out", command="generate", settings={"baseline": "shuffled", "seed": 1}),
    ):
        pass
