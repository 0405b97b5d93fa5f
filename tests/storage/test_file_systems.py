"""File systems that lack what local disks have: locks (flock), and fsync of folders or of files."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import Timeout

from cxrreport.errors import OutputError
from cxrreport.storage.atomic_files import write_json
from cxrreport.storage.locks import lock_file, locked_file
from cxrreport.storage.output_folder import output_folder

MISSING = [errno.ENOTSUP, errno.EINVAL, errno.ENOSYS, errno.ENOLCK]
NO_FLOCK = """
import errno, fcntl
def flock(*_): raise OSError({number}, "not here")
fcntl.flock = flock
"""
HOLD = """
import sys, time; from pathlib import Path; from cxrreport.storage.output_folder import output_folder
with output_folder(Path(sys.argv[1]), command="ingest", settings={}):
    print("in", flush=True); time.sleep(60)
"""


@pytest.fixture(params=MISSING, ids=lambda number: errno.errorcode[number])
def number(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """An error number, with which flock fails."""

    def flock(*_given: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr("fcntl.flock", flock)
    return int(request.param)


def test_a_soft_lock_excludes_others_and_ends(tmp_path: Path, number: int) -> None:
    path = tmp_path / "events.jsonl"
    with locked_file(path):
        assert (tmp_path / "events.jsonl.soft").is_file()
        with pytest.raises(Timeout):
            lock_file(path)
    lock_file(path).release()
    assert not (tmp_path / "events.jsonl.soft").exists()


def test_a_command_works_with_a_soft_lock_and_names_its_holder(tmp_path: Path, number: int) -> None:
    with output_folder(tmp_path, command="ingest", settings={}) as folder:
        with (
            pytest.raises(OutputError, match=rf"process {os.getpid()} on .*another machine, remove .*\.lock\.soft"),
            output_folder(tmp_path, command="ingest", settings={}),
        ):
            pass
        folder.finish()
    with output_folder(tmp_path, command="ingest", settings={}) as folder:
        assert folder.finished
    failing = tmp_path / "failing"
    with pytest.raises(ZeroDivisionError), output_folder(failing, command="ingest", settings={}):
        raise ZeroDivisionError
    with output_folder(failing, command="generate", settings={}):
        pass


def test_the_soft_lock_of_a_killed_process_does_not_block(tmp_path: Path, number: int) -> None:
    code = NO_FLOCK.format(number=number) + HOLD
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "in\n"
    with (
        pytest.raises(OutputError, match=f"process {child.pid}"),
        output_folder(tmp_path, command="ingest", settings={}),
    ):
        pass
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=10)
    with output_folder(tmp_path, command="ingest", settings={}):
        pass


def test_other_errors_of_a_lock_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_given: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(OutputError, match="cannot be created or written"):
        output_folder(tmp_path, command="ingest", settings={}).__enter__()


@pytest.mark.parametrize("number", MISSING[:3], ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize("kind", [stat.S_ISDIR, lambda _mode: True], ids=["folders", "all"])
def test_a_missing_fsync_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: object) -> None:
    refuse_sync(monkeypatch, number, kind)
    write_json(tmp_path / "new" / "a.json", {"a": 1})
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == {"a": 1}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]


def test_a_failing_disk_is_not_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_sync(monkeypatch, errno.EIO, stat.S_ISREG)
    with pytest.raises(OSError, match="Input/output error"):
        write_json(tmp_path / "a.json", {})
    assert list(tmp_path.iterdir()) == []


def refuse_sync(monkeypatch: pytest.MonkeyPatch, number: int, kind: object) -> None:
    sync = os.fsync

    def refuse(handle: int) -> None:
        if kind(os.fstat(handle).st_mode):  # type: ignore[operator]
            raise OSError(number, os.strerror(number))
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse)
