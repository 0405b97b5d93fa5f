"""The output folder of a command: locked while the command runs, and bound to the settings that created it.

`<command>.json` in the folder records the settings. Re-running the same command resumes; a command with other settings
is refused.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import BaseFileLock, Timeout

from cxrreport.errors import InputError, OutputError
from cxrreport.settings import current_names
from cxrreport.storage.atomic_files import PARTIAL, write_json
from cxrreport.storage.decoding import parse_json
from cxrreport.storage.locks import SOFT, lock_file, soft_file
from cxrreport.storage.run_progress import PROGRESS

LOCK = ".lock"
_LOCKS = {LOCK, soft_file(Path(LOCK)).name, PROGRESS}
logger = logging.getLogger(__name__)

VOLATILE = frozenset({"tracking", "output", "workers", "converted", "ray", "devices", "update", "max_failures"})
"""Settings that affect how and where a command runs but not its results: they may change when it is resumed."""


class OutputFolder:
    """An output folder that this process has locked; opened with `output_folder`.

    Args:
        path: the folder.
        record: content of `<command>.json`: `verb` (the command), `settings`, `finished`, and the facts that the
            command added.
        fresh: whether no earlier run wrote here.
    """

    def __init__(self, path: Path, record: dict[str, Any], *, fresh: bool) -> None:
        self.path = path
        self.record = record
        self.fresh = fresh

    @property
    def finished(self) -> bool:
        """Whether a run with these settings has finished."""
        return bool(self.record.get("finished"))

    def update(self, **facts: Any) -> None:
        """Add `facts` to `<command>.json`, for example what a resumed run needs."""
        record = self.record | facts
        write_json(self.path / f"{record['verb']}.json", record)
        self.record = record

    def finish(self, **facts: Any) -> None:
        """Add `facts` and `"finished": true`: the last step of a command."""
        self.update(**facts, finished=True)
        (self.path / PROGRESS).unlink(missing_ok=True)


@contextmanager
def output_folder(
    path: Path, *, command: str, settings: Mapping[str, Any], volatile: Collection[str] = VOLATILE
) -> Iterator[OutputFolder]:
    """Create or reopen the folder that `command` writes, and lock it until the end of the block.

    Incomplete files of an earlier run are removed. A run that fails before it has written anything leaves no settings.

    Args:
        path: the folder; created with its parents if necessary.
        command: name of the state file, `<command>.json`.
        settings: the settings that determine the results, as JSON values (`settings.model_dump(mode="json")`).
        volatile: fields of `settings` that are ignored when settings are compared.

    Raises:
        OutputError: another run holds the folder; it contains files of another command or was written with other
            settings; it is a file, or cannot be written.
    """
    lock = _lock(path)
    try:
        for leftover in path.rglob(f"{PARTIAL}*"):
            leftover.unlink(missing_ok=True)
        record = read_state(path, command)
        if record is None:
            foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in _LOCKS)
            if foreign:
                raise OutputError(
                    f"{path}: the output folder is not empty and contains no {command}.json (found {foreign[0]!r}"
                    f"{f' and {len(foreign) - 1} more' if len(foreign) > 1 else ''}); choose a new folder"
                )
        else:
            compare_settings(path, command, record["settings"], settings, volatile)
            state = "has finished before; these are its results" if record.get("finished") else "resumes"
            logger.info("%s: %s %s", path, command, state)
        started = {"verb": command, "settings": json.loads(json.dumps(dict(settings))), "finished": False}
        folder = OutputFolder(path, record or started, fresh=record is None)
        if folder.fresh:
            folder.update()
        try:
            yield folder
        except BaseException:
            if folder.fresh and {entry.name for entry in path.iterdir()} <= {*_LOCKS, f"{command}.json"}:
                (path / PROGRESS).unlink(missing_ok=True)
                (path / f"{command}.json").unlink(missing_ok=True)  # the corrected command can use the same folder
            raise
    finally:
        lock.release()


def _lock(path: Path) -> BaseFileLock:
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = lock_file(path / LOCK)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"{path}: the output must be a folder, but a file of that name exists") from error
    except Timeout as error:
        holder = ""
        with suppress(OSError):
            holder = (path / LOCK).read_text(encoding="utf-8", errors="replace").strip()
        raise OutputError(
            f"{path}: another run{f' (process {holder})' if holder else ''} is writing to this folder; "
            f"wait for it, or choose another folder{_left_behind(error.lock_file)}"
        ) from error
    except OSError as error:
        raise OutputError(f"{path}: the output folder cannot be created or written ({error.strerror})") from error
    with suppress(OSError):  # Windows does not let anyone write to a locked file
        (path / LOCK).write_text(f"{os.getpid()} on {platform.node()}", encoding="utf-8")
    return lock


def is_locked(path: Path) -> bool:
    """Whether a process of this machine, or one on another machine, holds the folder; from the text of its lock."""
    try:
        process, _, machine = (path / LOCK).read_text(encoding="utf-8", errors="replace").strip().partition(" on ")
    except OSError:
        return False
    return machine != platform.node() or (process.isdecimal() and psutil.pid_exists(int(process)))


def _left_behind(lock: str) -> str:
    """How to remove a soft lock, which a machine that failed leaves behind."""
    return f". If that process has ended on another machine, remove {lock}" if lock.endswith(SOFT) else ""


def finished_record(folder: Path, command: str) -> dict[str, Any]:
    """Read `<command>.json` of a finished run.

    Raises:
        InputError: the file is missing or damaged, or the run has not finished.
    """
    path = folder / f"{command}.json"
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read; pass the output folder of `cxrreport {command}`") from error
    if not isinstance(record, dict) or not record.get("finished"):
        raise InputError(f"{folder}: {command} has not finished; re-run the same {command} command")
    return current_names(record)


def read_state(path: Path, command: str) -> dict[str, Any] | None:
    """Return the content of `<command>.json` in the folder `path`, `None` if there is no such file.

    Raises:
        OutputError: it cannot be read, or is not a state file of this command.
    """
    file = path / f"{command}.json"
    try:
        record = parse_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"{file}: cannot be read as JSON; choose a new folder") from error
    if not isinstance(record, dict) or record.get("verb") != command or not isinstance(record.get("settings"), dict):
        raise OutputError(f"{file}: not a state file of {command!r}; choose a new folder")
    return record


def compare_settings(
    path: Path, command: str, old: Mapping[str, Any], new: Mapping[str, Any], volatile: Collection[str]
) -> None:
    """Compare the settings of a folder with those of the current command, except the fields `volatile`.

    Raises:
        OutputError: they differ; the fields are listed.
    """
    old, given = current_names(old), json.loads(json.dumps(dict(new)))
    names = [name for name in sorted(old.keys() | given.keys()) if name not in volatile]
    differing = [
        f"{name} was {json.dumps(old.get(name))} and is {json.dumps(given.get(name))}"
        for name in names
        if old.get(name) != given.get(name)
    ]
    if differing:
        raise OutputError(
            f"{path}: the folder was written by {command} with other settings ({'; '.join(differing)}); "
            "choose a new folder, or use the earlier settings"
        )
