"""Columns of a manifest in memory: a few bytes a row, shared by forked processes, and rows as objects on request.

377,000 images as Python objects take more than a gigabyte, and every worker of a training process would copy them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

V = TypeVar("V")

_AT_A_TIME = 4096


class RowIndex:
    """Finds the row of an id. Keeps a sorted hash for each row; the ids themselves stay in their column."""

    def __init__(self, ids: pa.Array) -> None:
        self._ids = ids
        hashes = np.fromiter((_hash(str(one)) for one in ids), np.uint64, len(ids))
        self._rows = np.argsort(hashes, kind="stable").astype(np.int32)
        self._hashes = hashes[self._rows]

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return (one.as_py() for one in self._ids)

    def row(self, one: str) -> int:
        """The last row with this id.

        Raises:
            KeyError: there is none.
        """
        wanted = np.uint64(_hash(one))
        place = int(np.searchsorted(self._hashes, wanted, side="right")) - 1
        while place >= 0 and self._hashes[place] == wanted:
            row = int(self._rows[place])
            if self._ids[row].as_py() == one:
                return row
            place -= 1
        raise KeyError(one)


def _hash(one: str) -> int:
    return int.from_bytes(hashlib.blake2b(one.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


class ByRow(Mapping[str, V], Generic[V]):
    """A mapping from ids to values that are made from their row when they are read."""

    def __init__(self, index: RowIndex, make: Callable[[int], V]) -> None:
        self._index, self._make = index, make

    def __getitem__(self, one: str) -> V:
        return self._make(self._index.row(one))

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)


class Places(Mapping[str, tuple[str, int]]):
    """File name and row in the image store of every image."""

    def __init__(self, index: RowIndex, shards: pa.Array, rows: Sequence[int] | NDArray[np.int32]) -> None:
        encoded = shards.dictionary_encode()
        self.files: list[str] = encoded.dictionary.to_pylist()
        self._index = index
        self._file = numbers(encoded.indices)
        self._row = np.asarray(rows, np.int32)

    def __getitem__(self, one: str) -> tuple[str, int]:
        row = self._index.row(one)
        return self.files[self._file[row]], int(self._row[row])

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def rows_in(self, files: set[str]) -> NDArray[np.int64]:
        """Rows of the images in these files."""
        return np.flatnonzero(np.isin(self._file, [n for n, name in enumerate(self.files) if name in files]))


def combined(column: pa.ChunkedArray) -> pa.Array:
    """The chunks of a column as one array."""
    chunks = column.combine_chunks()
    return chunks if isinstance(chunks, pa.Array) else pa.concat_arrays(column.chunks)


def numbers(column: pa.Array) -> NDArray[np.int32]:
    """An int32 column without nulls as an array of its own."""
    return np.frombuffer(column.cast(pa.int32()).buffers()[1], np.int32)[
        column.offset : column.offset + len(column)
    ].copy()


def lengths(column: pa.Array) -> NDArray[np.int32]:
    """Bytes of each text of a string column."""
    ends = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    return np.diff(ends)


def each_ids(
    column: Mapping[str, pa.Array], first: NDArray[np.int64], studies: NDArray[np.int64]
) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Id, patient, split and image ids of some studies.

    Args:
        column: `study_id`, `patient_id`, `split` and `image_id` of all rows.
        first: the first row of each study.
        studies: numbers of the studies.
    """
    ends = np.append(first[1:], len(column["image_id"]))
    for start in range(0, len(studies), _AT_A_TIME):  # one value after another takes ten times as long
        some = studies[start : start + _AT_A_TIME]
        rows, counts = first[some], ends[some] - first[some]
        values = [column[name].take(pa.array(rows)).to_pylist() for name in ("study_id", "patient_id", "split")]
        of_images = np.repeat(rows - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        images = iter(column["image_id"].take(pa.array(of_images)).to_pylist())
        for study, patient, split, count in zip(*values, counts.tolist(), strict=True):
            yield study, patient, split, tuple(islice(images, count))


def first_rows(studies: pa.Array) -> NDArray[np.int64] | None:
    """The first row of each study, or `None` if the rows are not sorted by study id."""
    encoded = studies.dictionary_encode()
    ids, codes = encoded.dictionary.to_pylist(), numbers(encoded.indices)
    if np.any(np.diff(codes) < 0) or any(before >= after for before, after in pairwise(ids)):
        return None
    return np.flatnonzero(np.diff(codes, prepend=-1))
