"""Every command on a full disk: one sentence and an exit code; with more space, the same command succeeds.

The disks are file systems in memory (for which the tests must run as root) or a limit on the size of files.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attack.killing import Running, content_below, import_everything, names_below, run
from attack.test_kills import CASES, with_store, words_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
FULL = re.compile(r"disk is full|No space left|disk full|file too large|cannot be written|cannot be used", re.I)
PARTS = (0.1, 0.3, 0.5, 0.7, 0.9)
ATTACKED = [case for case in CASES if case != "train, 2 processes"]


@contextmanager
def disk(folder: Path) -> Iterator[Any]:
    """A small file system; yields the function that sets its size in bytes."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield lambda size: subprocess.run(["mount", "-o", f"remount,size={int(size)}", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def size_of(folder: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in folder.rglob("*"))


def said_in_one_sentence(log: Path) -> str:
    """What is wrong with the output of a command; empty if nothing."""
    text = log.read_text()
    if "Traceback" in text:
        return f"a traceback: {text[-600:]}"
    if len([line for line in text.splitlines() if line.strip()]) > 40:
        return f"{len(text.splitlines())} lines: {text[-600:]}"
    return "" if FULL.search(text) else f"does not say it: {text[-600:]}"


@pytest.mark.parametrize("case", ATTACKED)
def test_a_full_disk(case, demo, tmp_path, note):
    undisturbed = with_store(tmp_path / "undisturbed", demo)
    options = {"MLFLOW_TRACKING_URI": f"sqlite:///{undisturbed.parent}/mlflow.db"}
    import_everything(tmp_path / "import.log")
    run(words_of(case, demo, undisturbed), tmp_path / "undisturbed.log", **options)
    expected, files, needed = content_below(undisturbed), names_below(undisturbed.parent), size_of(undisturbed.parent)
    failures, full = [], 0
    with disk(tmp_path / "disk") as resize:
        for part in PARTS:
            resize(4 * needed + (64 << 20))
            folder = tmp_path / "disk" / str(part)
            out = with_store(folder, demo)
            before = size_of(folder)
            resize(before + part * (needed - before))
            words, log = words_of(case, demo, out), tmp_path / f"{part}.log"
            options = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
            code = Running(words, log, **options).wait()
            full += code != 0
            if code not in (0, 1, 2):
                failures.append(f"{part} of the room: exit code {code}")
            if code and (wrong := said_in_one_sentence(log)):
                failures.append(f"{part} of the room: {wrong}")
            resize(4 * needed + (64 << 20))
            try:
                run(words, tmp_path / f"{part}-again.log", **options)
            except AssertionError as error:
                failures.append(f"{part} of the room, then enough: {error}")
                continue
            if content_below(out) != expected or names_below(folder) != files:
                failures.append(f"{part} of the room, then enough: other files or content")
            shutil.rmtree(folder)
    note(kind="full disk", case=case, tries=len(PARTS), full=full, failed=len(failures))
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("limit", [0, 512, 4096, 65536, 1 << 20])
def test_a_limit_on_the_size_of_files(limit, demo, tmp_path, note):
    """As root or not; the store is elsewhere, because a database is larger than this."""
    out, log = tmp_path / "out", tmp_path / "log"
    words = [*words_of("ingest", demo, out), "--no-track"]
    code = Running(words, log, LIMIT_FILE_SIZE=str(max(limit, 1))).wait()
    run(words, tmp_path / "again")
    assert code in (0, 1, 2)
    run([*words_of("ingest", demo, tmp_path / "other" / "out"), "--no-track"], tmp_path / "other.log")
    assert content_below(out) == content_below(tmp_path / "other" / "out")
    note(kind="file size", case=f"ingest, {limit} bytes", tries=1, full=int(code != 0), failed=0)
