"""Files and folders that a stop at any moment leaves whole or absent.

Every verb writes into one output folder, which it opens with `output_folder`: the folder is locked for as long as the
verb works, and `<verb>.json` in it records the settings that made it, so that the same command goes on after a stop
and another command is refused. Single files are written with `atomic_path` or `write_json`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cxrreport.errors import InputError, OutputError

PARTIAL = ".partial-"
"""Prefix of files that are not whole yet; hidden, so that readers of whole folders (PyArrow) pass them over."""
LOCK = ".lock"
VOLATILE = frozenset({"tracking", "output", "workers", "converted", "ray"})
"""Settings that say how and where a run works, not what it makes: they may change between a stop and going on."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _disk_full(error: BaseException) -> bool:
    # Writers in Rust and C++ (safetensors, torch) raise their own types, with the system's sentence in the message.
    return (isinstance(error, OSError) and error.errno in _FULL) or "No space left on device" in str(error)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name in the folder of `path`, and rename it to `path` once the block has written it.

    The name keeps the suffix of `path`, as some writers choose the format by it. The folder is made when missing. When
    the block raises, the temporary file is removed and a file that stood at `path` before is untouched.

    Raises:
        OutputError: the disk is full, or the file cannot be made or renamed. Other errors of the block pass through.
    """
    temporary = path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if _disk_full(error):
            raise OutputError(
                f"{path}: the disk is full or its quota is reached; make room and give the same command again"
            ) from error
        if isinstance(error, OSError) and str(error.filename) in {str(temporary), str(path.parent)}:
            raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, whole or not at all.

    Raises:
        OutputError: as `atomic_path`.
        ValueError: `value` holds NaN or an infinity, which JSON does not have.
    """
    with atomic_path(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


class OutputFolder:
    """An output folder that this process holds the lock of; made by `output_folder`.

    Args:
        path: the folder.
        record: what `<verb>.json` holds: `verb`, `settings`, `finished`, and the facts that the verb has added.
        fresh: True where no run was here before.
    """

    def __init__(self, path: Path, record: dict[str, Any], *, fresh: bool) -> None:
        self.path = path
        self.record = record
        self.fresh = fresh

    @property
    def finished(self) -> bool:
        """True where a run of these settings has come to its end."""
        return bool(self.record.get("finished"))

    def update(self, **facts: Any) -> None:
        """Add `facts` to `<verb>.json`, for example what a run that goes on later must know."""
        record = self.record | facts
        write_json(self.path / f"{record['verb']}.json", record)
        self.record = record

    def finish(self, **facts: Any) -> None:
        """Add `facts` and `"finished": true`: the last thing that a verb does in its folder."""
        self.update(**facts, finished=True)


def finished_record(folder: Path, command: str) -> dict[str, Any]:
    """Read `<command>.json` of a finished run.

    Raises:
        InputError: the file is missing or damaged, or the run has not finished.
    """
    path = folder / f"{command}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read; pass the output folder of `cxrreport {command}`") from error
    if not isinstance(record, dict) or not record.get("finished"):
        raise InputError(f"{folder}: {command} has not finished; re-run the same {command} command")
    return record


@contextmanager
def output_folder(
    path: Path, *, verb: str, settings: Mapping[str, Any], volatile: Collection[str] = VOLATILE
) -> Iterator[OutputFolder]:
    """Make or reopen the folder that `verb` writes into, and lock it until the block ends.

    The lock is an advisory one of the operating system (`flock`): it ends with the process however that dies, so a
    folder is never left locked. Half-written files of an earlier run are removed. A run that fails before it has made
    anything leaves no settings behind either.

    Args:
        path: the folder; made, parents too, when missing.
        verb: names the state file, `<verb>.json`.
        settings: what made the folder, as JSON values (`settings.model_dump(mode="json")`).
        volatile: fields of `settings` that do not count when settings are compared.

    Raises:
        OutputError: another run works in the folder; it holds files that are not of this verb, or of other settings;
            it is a file, or cannot be written.
    """
    lock = _lock(path)
    try:
        for leftover in path.rglob(f"{PARTIAL}*"):
            leftover.unlink(missing_ok=True)
        record = _read_record(path, verb)
        if record is None:
            foreign = sorted(entry.name for entry in path.iterdir() if entry.name != LOCK)
            if foreign:
                raise OutputError(
                    f"{path}: the output folder is not empty and holds no {verb}.json (found {foreign[0]!r}"
                    f"{f' and {len(foreign) - 1} more' if len(foreign) > 1 else ''}); give a new folder"
                )
        else:
            _compare(path, verb, record["settings"], settings, volatile)
        started = {"verb": verb, "settings": json.loads(json.dumps(dict(settings))), "finished": False}
        folder = OutputFolder(path, record or started, fresh=record is None)
        if folder.fresh:
            folder.update()
        try:
            yield folder
        except BaseException:
            if folder.fresh and {entry.name for entry in path.iterdir()} <= {LOCK, f"{verb}.json"}:
                (path / f"{verb}.json").unlink(missing_ok=True)  # the same folder serves the command put right
            raise
    finally:
        os.close(lock)


def part_folder(output: Path, shard: str | None) -> Path:
    """Where a run writes: `output`, or for `shard` `i/n` of an array of jobs a folder of its own beside it."""
    return output if shard is None else parts_folder(output) / shard.replace("/", "-of-")


def parts_folder(output: Path) -> Path:
    """Where the parts of an array of jobs lie, beside `output`."""
    return output.with_name(f"{output.name}.shards")


def parts_of(folder: OutputFolder, output: Path) -> list[Path]:
    """The folders that an array of jobs has written with the settings of `folder`.

    Raises:
        OutputError: one is of other settings.
    """
    verb = folder.record["verb"]
    found = sorted(path.parent for path in parts_folder(output).glob(f"*-of-*/{verb}.json"))
    for path in found:
        record = _read_record(path, verb)
        if record is not None:
            _compare(path, verb, record["settings"], folder.record["settings"], VOLATILE | {"shard"})
    return found


def remove_parts(output: Path, verb: str) -> None:
    """Remove the parts of an array of jobs once their content is in `output`, unless a job is still at work there."""
    records = [_read_record(path.parent, verb) for path in parts_folder(output).glob(f"*/{verb}.json")]
    if all(record is not None and record["finished"] for record in records):
        shutil.rmtree(parts_folder(output), ignore_errors=True)


def _lock(path: Path) -> int:
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{path}: the output must be a folder, and a file is in the way") from error
    except OSError as error:
        raise OutputError(f"{path}: the output folder cannot be made or written ({error.strerror})") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(lock, 32).decode("ascii", errors="replace").strip()
        os.close(lock)
        raise OutputError(
            f"{path}: another run{f' (process {holder})' if holder else ''} works in this folder; "
            "wait for it, or give another folder"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode("ascii"), 0)
    return lock


def _read_record(path: Path, verb: str) -> dict[str, Any] | None:
    file = path / f"{verb}.json"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"{file}: cannot be read as JSON; give a new folder") from error
    if not isinstance(record, dict) or record.get("verb") != verb or not isinstance(record.get("settings"), dict):
        raise OutputError(f"{file}: not the state file of {verb!r}; give a new folder")
    return record


def _compare(path: Path, verb: str, old: dict[str, Any], new: Mapping[str, Any], volatile: Collection[str]) -> None:
    given = json.loads(json.dumps(dict(new)))
    names = [name for name in sorted(old.keys() | given.keys()) if name not in volatile]
    differing = [
        f"{name} was {json.dumps(old.get(name))} and is {json.dumps(given.get(name))}"
        for name in names
        if old.get(name) != given.get(name)
    ]
    if differing:
        raise OutputError(
            f"{path}: the folder was made by {verb} with other settings ({'; '.join(differing)}); "
            "give a new folder, or the settings of before"
        )
