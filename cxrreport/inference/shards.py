"""Predictions in shards, so that an interrupted run can resume.

The studies are divided into shards. The file of a shard is written as a whole. It holds
the predictions of every study, one per prompt, or one row with the reason why there are none. `inputs.json` beside the
shards records weights and data, so that shards of two models are never combined.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from cxrreport.errors import OutputError
from cxrreport.records import Box, Exclusion, Prediction, Reason, differing
from cxrreport.storage.atomic_files import atomic_path, write_json
from cxrreport.storage.decoding import parse_json

_LOG = logging.getLogger(__name__)

Row = Prediction | Exclusion

_SHARDS_IN_MEMORY = 16


class Shards:
    """The shards of one run.

    Args:
        folder: folder of the shards; created if missing.
        study_ids: of each shard, every study of the run once.
        inputs: what the predictions are made from, as JSON values.
        texts: predictions per study.

    Raises:
        OutputError: the folder holds shards of other inputs, or cannot be written.
    """

    def __init__(
        self, folder: Path, study_ids: Sequence[Sequence[str]], *, inputs: Mapping[str, Any], texts: int = 1
    ) -> None:
        self.folder = folder
        self._texts = texts
        self.study_ids = {number: tuple(ids) for number, ids in enumerate(study_ids)}
        """Study ids of each shard, in order. While a folder is being read, its shards are added here."""
        file = folder / "inputs.json"
        wanted = json.loads(json.dumps(dict(inputs)))
        try:
            found = parse_json(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            write_json(file, wanted)
        except (OSError, ValueError) as error:
            raise OutputError(f"{file}: cannot be read as JSON; use a new output folder") from error
        else:
            if found != wanted:
                changed = sorted(differing(found, wanted)) if isinstance(found, dict) else ["all"]
                raise OutputError(
                    f"{folder}: holds predictions from other inputs ({', '.join(changed)} changed since); "
                    "use a new output folder"
                )

    def read(self, index: int) -> list[Row] | None:
        """Read shard `index`; `None` if it is missing, damaged or of other studies."""
        return self._read(self._file(index), index)

    def _read(self, file: Path, index: int) -> list[Row] | None:
        try:
            rows = _rows_of(file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError):
            _LOG.warning("%s: cannot be read as a shard; its studies are generated again", file)
            return None
        if not self._covers(index, rows):
            _LOG.warning("%s: holds other studies; the shard is generated again", file)
            return None
        return rows

    def _covers(self, index: int, rows: Sequence[Row]) -> bool:
        """True if every study of the shard is there, in order, with all of its predictions or one reason."""
        found = [(study, list(group)) for study, group in groupby(rows, key=lambda row: row.study_id)]
        return tuple(study for study, _ in found) == self.study_ids[index] and all(
            len(group) == (1 if isinstance(group[0], Exclusion) else self._texts) for _, group in found
        )

    def complete(self, index: int) -> bool:
        """True if every study of shard `index` has its predictions.

        Studies that failed are attempted again when a run is resumed, because the cause may have been removed.
        """
        rows = self.read(index)
        return rows is not None and all(isinstance(row, Prediction) for row in rows)

    def take_over(self, folder: Path) -> None:
        """Copy the shards that are missing here from another folder, if they are of the same studies."""
        for index in self.study_ids:
            source = self._file(index, folder)
            if source.exists() and self.read(index) is None and self._read(source, index) is not None:
                with atomic_path(self._file(index)) as temporary:
                    shutil.copyfile(source, temporary)

    def write(self, index: int, rows: Sequence[Row]) -> None:
        """Write shard `index` as a whole.

        Raises:
            OutputError: the disk is full or the file cannot be written.
            ValueError: `rows` are not those of every study of this shard, in order.
        """
        if not self._covers(index, rows):
            raise ValueError(f"shard {index}: rows are not those of its studies, in order")
        with atomic_path(self._file(index)) as temporary:
            temporary.write_text("".join(f"{row_to_json(row)}\n" for row in rows), encoding="utf-8")

    def read_all(self, indices: Iterable[int]) -> Iterator[list[Row]]:
        """Read the rows of finished shards, ordered by study, in lists of at most one shard.

        Raises:
            OutputError: a shard is missing or damaged.
        """
        # Shards overlap if studies were added to a folder later.
        read = lru_cache(_SHARDS_IN_MEMORY)(self._required)
        order = sorted((study_id, index) for index in indices for study_id in self.study_ids[index])
        for index, group in groupby(order, key=lambda entry: entry[1]):
            wanted = {study_id for study_id, _ in group}
            yield [row for row in read(index) if row.study_id in wanted]

    def remove_others(self) -> None:
        """Remove shards of studies that the input no longer has."""
        for path in self.folder.glob("[0-9]*.jsonl"):
            if int(path.stem) not in self.study_ids:
                path.unlink()

    def _required(self, index: int) -> list[Row]:
        rows = self.read(index)
        if rows is None:
            raise OutputError(f"{self._file(index)}: missing or damaged; re-run the same command")
        return rows

    def _file(self, index: int, folder: Path | None = None) -> Path:
        return (folder or self.folder) / f"{index:05d}.jsonl"


class SavedPredictions:
    """The predictions in the shards of several folders, by study, however the studies are divided.

    Args:
        folders: of shards; the first that has a study counts.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._file: dict[str, Path] = {}
        self._read = lru_cache(_SHARDS_IN_MEMORY)(_predictions_of)
        for folder in folders:
            for path in sorted(folder.glob("[0-9]*.jsonl")):
                for study_id in _predictions_of(path):
                    self._file.setdefault(study_id, path)

    def of(self, study_id: str) -> list[Prediction]:
        """The predictions of a study; none if there are none, or if the shard has been replaced since."""
        path = self._file.get(study_id)
        return [] if path is None else self._read(path).get(study_id, [])


def _rows_of(file: Path) -> list[Row]:
    return [row_from_json(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def _predictions_of(file: Path) -> dict[str, list[Prediction]]:
    found: dict[str, list[Prediction]] = {}
    with suppress(OSError, ValueError, TypeError, KeyError):  # a damaged shard is generated again
        for row in _rows_of(file):
            if isinstance(row, Prediction):
                found.setdefault(row.study_id, []).append(row)
    return found


def row_to_json(row: Row) -> str:
    """Write one row as JSON on one line; a study that failed has the key `reason`, a prediction does not."""
    return json.dumps(asdict(row), ensure_ascii=False, allow_nan=False)


def row_from_json(line: str) -> Row:
    """Read one line of `row_to_json`.

    Raises:
        ValueError, TypeError, KeyError: the line is not a row.
    """
    values = parse_json(line)
    if "reason" in values:
        return Exclusion(**values | {"reason": Reason(values["reason"])})
    lists = {name: tuple(values[name]) for name in ("image_ids", "image_sha256")}
    return Prediction(**values | lists | {"boxes": tuple(Box(**box) for box in values["boxes"])})
