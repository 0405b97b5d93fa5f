"""The records of the runs that belong to one study: ingest, train, generate, evaluate."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrreport.errors import InputError
from cxrreport.settings import current_names
from cxrreport.storage.command_files import read_scores, written_by
from cxrreport.storage.decoding import parse_json

COMMANDS = ("ingest", "train", "generate", "evaluate")
SCORES = "scores"
_DEEPEST = 3
_MOST = 2000
"""Folders that are searched."""


@dataclass(frozen=True, slots=True)
class Study:
    """Records by command; `scores` is `scores.json` of the evaluation.

    Args:
        folder: the folder that was searched.
        records: command to its record.
        files: command to the file of the record, relative to the folder.
    """

    folder: Path
    records: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, str]

    def value(self, place: str) -> Any:
        """The value at `command:key.key`; `None` if it is not recorded."""
        command, _, keys = place.partition(":")
        found: Any = self.records.get(command)
        for key in keys.split("."):
            if not isinstance(found, Mapping):
                return None
            found = found.get(key)
        return found


def read_study(folder: Path) -> Study:
    """Find the records below a folder that belong together.

    The evaluation is the newest one; its predictions, their adapter and their images determine the others. Without an
    evaluation the newest generation is taken, and so on.

    Raises:
        InputError: the folder does not exist, or there is no record of a finished run.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; give the folder that holds the outputs of your runs")
    found: dict[str, list[tuple[Path, dict[str, Any]]]] = {command: [] for command in COMMANDS}
    for path, record in _records(folder):
        found[path.stem].append((path, record))
    if not any(found.values()):
        raise InputError(f"{folder}: no finished ingest, train, generate or evaluate; give the folder of their outputs")
    chosen: dict[str, tuple[Path, dict[str, Any]]] = {}
    if found["evaluate"]:
        chosen["evaluate"] = _newest(found["evaluate"])
    predictions = _places(chosen["evaluate"], "predictions") if chosen else set()
    generated = [one for one in found["generate"] if one[1].get("baseline", "none") == "none"]
    belongs = [one for one in generated if one[0].parent.resolve() in predictions]
    if belongs or (generated and not chosen):
        chosen["generate"] = _newest(belongs or generated)
    record = chosen["generate"][1] if "generate" in chosen else {}
    adapters = _places(chosen["generate"], "adapter") if record else set()
    trained = [one for one in found["train"] if one[0].parent.resolve() in {one.parent for one in adapters}]
    if trained or (found["train"] and not chosen):
        chosen["train"] = _newest(trained or found["train"])
    digests = {record.get("inputs", {}).get("data"), chosen.get("train", (None, {}))[1].get("data_digest")}
    scores = read_scores(chosen["evaluate"][0].parent) if "evaluate" in chosen else {}
    digests.add(scores.get("conditions", {}).get("references"))  # of tables from elsewhere it is another
    ingested = [one for one in found["ingest"] if one[1].get("digest") in digests - {None}]
    if ingested or (found["ingest"] and not chosen):
        chosen["ingest"] = _newest(ingested or found["ingest"])
    records: dict[str, Mapping[str, Any]] = {command: one for command, (_, one) in chosen.items()}
    files = {command: path.relative_to(folder).as_posix() for command, (path, _) in chosen.items()}
    if scores:
        records[SCORES] = scores
        files[SCORES] = chosen["evaluate"][0].with_name("scores.json").relative_to(folder).as_posix()
    return Study(folder, records, files)


def _records(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """State files of finished runs, down to three folders below; MLflow's copies are not read."""
    level = [folder]
    seen = 0
    for _ in range(_DEEPEST + 1):
        following: list[Path] = []
        for place in level:
            for command in COMMANDS:
                path = place / f"{command}.json"
                if path.is_file():
                    record = current_names(_read(path, command))
                    if record.get("finished"):
                        yield path, record
            below = sorted(one for one in place.iterdir() if one.is_dir() and one.name != "mlartifacts")
            seen += len(below)
            if seen > _MOST:
                raise InputError(f"{folder}: over {_MOST} folders; give the folder that holds the outputs of your runs")
            following += below
        level = following


def _read(path: Path, command: str) -> dict[str, Any]:
    with written_by(command, path):
        record = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise TypeError
    return record


def _newest(ones: list[tuple[Path, dict[str, Any]]]) -> tuple[Path, dict[str, Any]]:
    return max(ones, key=lambda one: (one[0].stat().st_mtime, str(one[0])))


def _places(record: tuple[Path, dict[str, Any]], name: str) -> set[Path]:
    """Where a path of the settings is: as recorded, and from the output folder if all have been moved together."""
    path, content = record
    settings = content.get("settings", {})
    if not isinstance(settings, Mapping) or not settings.get(name):
        return set()
    places = {Path(str(settings[name])).resolve()}
    if output := settings.get("output"):
        with suppress(ValueError):  # other drives of Windows
            places.add((path.parent / os.path.relpath(str(settings[name]), str(output))).resolve())
    return places
