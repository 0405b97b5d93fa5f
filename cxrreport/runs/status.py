"""State of a command from the files of its output folder: what it does, how fast, and how long it will take.

A kind of folder is a function in `KINDS` that describes the folders it knows.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from cxrreport.errors import InputError
from cxrreport.storage.decoding import parse_json
from cxrreport.storage.job_arrays import parts_folder
from cxrreport.storage.run_progress import read_progress

_QUIET_SECONDS = 600.0
"""Age of the last progress after which a command on another machine counts as stopped."""

State = Literal["running", "finished", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Progress of one part of a command.

    Args:
        label: of the items, for example `studies`.
        rate: items per second since this process began with them; `None` if it has not finished any.
        seconds_left: at this rate; `None` without a rate.
    """

    label: str
    done: int
    total: int
    rate: float | None
    seconds_left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One folder.

    Args:
        command: name of the command, or of another kind of work.
        stages: in the order in which they began; empty if the command has recorded none.
        seconds_ago: age of the last progress.
        note: what a user should do or know.
    """

    folder: Path
    command: str
    state: State
    stages: tuple[Stage, ...] = ()
    seconds_ago: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self) | {"folder": str(self.folder), "stages": [asdict(stage) for stage in self.stages]}


def command_folder(folder: Path) -> Status | None:
    """The output folder of a command."""
    for path in sorted(folder.glob("*.json")):
        record = _read(path)
        if record.get("verb") != path.stem or not isinstance(record.get("settings"), dict):
            continue
        progress = read_progress(folder)
        stages = tuple(_stage(label, values) for label, values in progress.get("stages", {}).items())
        updated = max((values["updated"] for values in progress.get("stages", {}).values()), default=None)
        if record.get("finished"):
            seconds = record.get("seconds") or record.get("summary", {}).get("seconds")
            note = f"took {seconds:,.0f} s" if isinstance(seconds, (int, float)) else ""
            return Status(folder=folder, command=path.stem, state="finished", note=note)
        running = _runs(progress, updated)
        return Status(
            folder=folder,
            command=path.stem,
            state="running" if running else "stopped",
            stages=stages,
            seconds_ago=None if updated is None else time.time() - updated,
            note="" if running else f"re-run the same {path.stem} command to resume",
        )
    return None


def queue_folder(folder: Path) -> Status | None:
    """The queue of `listen`: how many studies have ended, at the rate of the last hour, and what became of them."""
    if not (folder / "queue.sqlite").is_file():
        return None
    from cxrreport.pacs.monitor import queue_status

    found = queue_status(folder)
    states, waiting = found["studies"], found["waiting"]
    rate = found["ended_last_hour"] / 3600
    stage = Stage(
        label="studies",
        done=sum(states.values()) - waiting,
        total=sum(states.values()),
        rate=rate or None,
        seconds_left=waiting / rate if rate else None,
    )
    lines = [", ".join(f"{count:,} {state}" for state, count in states.items() if count) or "no study yet"]
    for name, counts in (("reasons", found["reasons"]), ("refused on arrival", found["refused"])):
        lines += [f"{name}: " + ", ".join(f"{key} {count:,}" for key, count in counts.items())] if counts else []
    lines += [f"given up: {one['study']} ({one['reason']})" for one in found["given_up"][:10]]
    return Status(
        folder=folder,
        command="listen",
        state="running" if found["running"] else "stopped",
        stages=(stage,),
        note="\n".join(lines),
    )


KINDS: tuple[Callable[[Path], Status | None], ...] = (queue_folder, command_folder)
"""Asked in this order; the first that knows a folder describes it."""


def status(folder: Path) -> list[Status]:
    """Status of an output folder and of the jobs of its array, or of all output folders in a folder.

    Raises:
        InputError: there is none.
    """
    inside = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    jobs = sorted(path for path in parts_folder(folder.absolute()).glob("*-of-*"))
    own = _described(folder) if folder.is_dir() else None
    found = [own] if own is not None else [one for path in inside if (one := _described(path))]
    found += [one for path in jobs if (one := _described(path))]
    if not found:
        raise InputError(f"{folder}: no output folder of a command, and none in it; pass the folder given as --output")
    return found


def _described(folder: Path) -> Status | None:
    return next((one for kind in KINDS if (one := kind(folder)) is not None), None)


def _stage(label: str, values: dict[str, float]) -> Stage:
    done, total, seconds = int(values["done"]), int(values["total"]), values["updated"] - values["begun"]
    rate = (done - values["done_before"]) / seconds if seconds > 0 else 0.0
    return Stage(
        label=label,
        done=done,
        total=total,
        rate=rate or None,
        seconds_left=(total - done) / rate if rate else None,
    )


def _runs(progress: dict[str, Any], updated: float | None) -> bool:
    if updated is None:
        return False
    if progress.get("machine") != platform.node():
        return time.time() - updated < _QUIET_SECONDS
    try:
        # A process that began later only has the same number.
        return psutil.Process(int(progress["process"])).create_time() <= updated
    except (psutil.Error, KeyError, ValueError):
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
