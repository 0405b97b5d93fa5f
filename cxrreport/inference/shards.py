"""Predictions in shards, so that a run that was stopped goes on where it was.

The studies, in the order of their ids, are cut into shards of a fixed size. A shard's file is written at once and
whole, with the predictions of every study, one for each prompt, or a line that says why there are none. `inputs.json`
beside them says from which weights and data they are, so that shards of two models never end up in one result.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from cxrreport.errors import OutputError
from cxrreport.records import Box, LeftOut, Prediction, Reason
from cxrreport.storage.files import atomic_path, write_json

_LOG = logging.getLogger(__name__)

Row = Prediction | LeftOut


class Shards:
    """The shards of one run.

    Args:
        folder: where they lie; made when missing.
        study_ids: all studies of the run, each once, in order.
        size: studies per shard.
        texts: predictions per study.
        inputs: what the predictions are made from, as JSON values.

    Raises:
        OutputError: the folder holds shards of other inputs, or cannot be written.
    """

    def __init__(
        self, folder: Path, study_ids: Sequence[str], *, size: int, inputs: Mapping[str, Any], texts: int = 1
    ) -> None:
        self.folder = folder
        self._texts = texts
        self.plan = [tuple(study_ids[start : start + size]) for start in range(0, len(study_ids), size)]
        """Study ids per shard."""
        file = folder / "inputs.json"
        wanted = json.loads(json.dumps(dict(inputs)))
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            write_json(file, wanted)
        except (OSError, ValueError) as error:
            raise OutputError(f"{file}: cannot be read as JSON; give a new output folder") from error
        else:
            if found != wanted:
                fields = set(wanted) | set(found if isinstance(found, dict) else {})
                other = sorted(
                    name for name in fields if not isinstance(found, dict) or found.get(name) != wanted.get(name)
                )
                raise OutputError(
                    f"{folder}: holds predictions from other inputs ({', '.join(other)} changed since); "
                    "give a new output folder"
                )

    def read(self, index: int) -> list[Row] | None:
        """Rows of shard `index`; None where it is not there, or not the shard of these studies."""
        return self._read(self._file(index), index)

    def _read(self, file: Path, index: int) -> list[Row] | None:
        try:
            rows = [_row(json.loads(line)) for line in file.read_text(encoding="utf-8").split("\n") if line]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError):
            _LOG.warning("%s: not readable as a shard; it is made again", file)
            return None
        if not self._whole(index, rows):
            _LOG.warning("%s: a shard of other studies; it is made again", file)
            return None
        return rows

    def _whole(self, index: int, rows: Sequence[Row]) -> bool:
        """Every study in order, each with all of its predictions or with one reason."""
        found = [(study, list(group)) for study, group in groupby(rows, key=lambda row: row.study_id)]
        return tuple(study for study, _ in found) == self.plan[index] and all(
            len(group) == (1 if isinstance(group[0], LeftOut) else self._texts) for _, group in found
        )

    def complete(self, index: int) -> bool:
        """True where shard `index` need not be made: every study has its predictions.

        Studies that failed are tried again when a run goes on, as the cause may be gone.
        """
        rows = self.read(index)
        return rows is not None and all(isinstance(row, Prediction) for row in rows)

    def take_over(self, folder: Path) -> None:
        """Copy the shards of another folder that are missing here, as far as they are of the same studies."""
        for index in range(len(self.plan)):
            source = self._file(index, folder)
            if source.exists() and self.read(index) is None and self._read(source, index) is not None:
                with atomic_path(self._file(index)) as temporary:
                    shutil.copyfile(source, temporary)

    def write(self, index: int, rows: Sequence[Row]) -> None:
        """Write shard `index`, whole or not at all.

        Raises:
            OutputError: the disk is full or the file cannot be written.
            ValueError: `rows` are not those of every study of this shard, in order.
        """
        if not self._whole(index, rows):
            raise ValueError(f"shard {index}: rows are not those of its studies, in order")
        with atomic_path(self._file(index)) as temporary:
            temporary.write_text("".join(f"{line(row)}\n" for row in rows), encoding="utf-8")

    def finished(self, indices: Iterable[int]) -> Iterator[list[Row]]:
        """The rows of shards, in order.

        Raises:
            OutputError: a shard is missing or damaged.
        """
        for index in indices:
            rows = self.read(index)
            if rows is None:
                raise OutputError(f"{self._file(index)}: missing or damaged; give the same command again")
            yield rows

    def _file(self, index: int, folder: Path | None = None) -> Path:
        return (folder or self.folder) / f"{index:05d}.jsonl"


def line(row: Row) -> str:
    """One row as JSON on one line; a study that failed has `reason`, a prediction has not."""
    return json.dumps(asdict(row), ensure_ascii=False, allow_nan=False)


def parsed(text: str) -> Row:
    """The row of a line that `line` has written.

    Raises:
        ValueError, TypeError, KeyError: it is no such line.
    """
    return _row(json.loads(text))


def _row(values: dict[str, Any]) -> Row:
    if "reason" in values:
        return LeftOut(**values | {"reason": Reason(values["reason"])})
    lists = {name: tuple(values[name]) for name in ("image_ids", "image_sha256")}
    return Prediction(**values | lists | {"boxes": tuple(Box(**box) for box in values["boxes"])})
