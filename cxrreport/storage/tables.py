"""The reader for tables that users provide: CSV, gzipped CSV, JSONL and Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import json
import stat
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from cxrreport.errors import InputError

TABLE_SUFFIXES = (".jsonl", ".csv", ".csv.gz", ".parquet")
MAX_CSV_BYTES = 2 << 30
"""Size limit of a CSV file after decompression: a small `.csv.gz` can decompress to more than the memory holds."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table in memory.

    Args:
        path: the file that was read.
        columns: names of the columns, in the order of the file.
        rows: one dict per row. JSONL and Parquet values keep their types; CSV values are texts.
        metadata: key-value metadata of a Parquet file.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    metadata: Mapping[bytes, bytes] = field(default_factory=dict)

    def require(self, *names: str) -> None:
        """Raise an `InputError` that lists the missing columns unless all of `names` are present."""
        if missing := [name for name in names if name not in self.columns]:
            found = ", ".join(sorted(self.columns)) or "none"
            raise InputError(f"{self.path}: no column {', '.join(missing)}; found {found}")


def is_table(path: Path) -> bool:
    """Return whether the file name ends in one of `TABLE_SUFFIXES`."""
    return path.name.lower().endswith(TABLE_SUFFIXES)


def read_table(path: Path, *, columns: Collection[str] | None = None) -> Table:
    """Read a table.

    Args:
        path: a file with one of `TABLE_SUFFIXES`. Text must be UTF-8; CSV needs commas and a header row.
        columns: names of the columns to read, those that are present; `None` for all.

    Raises:
        InputError: the file has another suffix, cannot be read, is malformed, or is larger than `MAX_CSV_BYTES`.
    """
    name = path.name.lower()
    if not name.endswith(TABLE_SUFFIXES):
        raise InputError(f"{path}: expected a table with a name that ends in {', '.join(TABLE_SUFFIXES)}")
    read = _read_parquet if name.endswith(".parquet") else _read_jsonl if name.endswith(".jsonl") else _read_csv
    # Causes are dropped: the messages of the parsers, and the decoding error itself, hold text of the table.
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would block
            raise InputError(f"{path}: not a regular file")
        return read(path, columns)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); convert the file to UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise InputError(f"{path}: the table cannot be read ({reason})") from None


def read_text_table(path: Path, *, required: Sequence[str] = ()) -> list[dict[str, str]]:
    """Read a table as texts without surrounding white space; a missing value becomes an empty text.

    Args:
        path: as for `read_table`.
        required: columns that must be present, in lower case.

    Returns:
        One dict per row, keyed by column name in lower case.

    Raises:
        InputError: the table cannot be read, or a required column is missing.
    """
    table = read_table(path)
    names = {name: name.strip().lower() for name in table.columns}
    Table(path, tuple(names.values()), []).require(*required)
    return [
        {names[name]: "" if value is None else str(value).strip() for name, value in row.items()} for row in table.rows
    ]


def _read_parquet(path: Path, columns: Collection[str] | None) -> Table:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            names = _selected(schema.names, columns)
            rows = file.read(columns=names, use_threads=False).to_pylist()
    except pa.ArrowException:
        raise InputError(f"{path}: not a Parquet file, or damaged") from None
    return Table(path, tuple(names), rows, schema.metadata or {})


def _read_jsonl(path: Path, columns: Collection[str] | None) -> Table:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{path}, line {number}: not JSON; a .jsonl file holds one object per line") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: not a JSON object")
        rows.append({name: row[name] for name in _selected(row, columns)})
    return Table(path, tuple(dict.fromkeys(name for row in rows for name in row)), rows)


def _read_csv(path: Path, columns: Collection[str] | None) -> Table:
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        data = file.read(MAX_CSV_BYTES + 1)
    if len(data) > MAX_CSV_BYTES:
        raise InputError(f"{path}: more than {MAX_CSV_BYTES >> 20} MiB of text; split it, or write it as Parquet")
    data.decode("utf-8")
    try:
        lines = csv.reader(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline=""))
        names = _selected(next(filter(None, lines), []), columns)
        # Not the csv module: it refuses fields of more than 131,072 characters, and that limit is global.
        table = pa.csv.read_csv(
            pa.BufferReader(data),
            read_options=pa.csv.ReadOptions(block_size=max(len(data), 1 << 20), use_threads=False),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                include_columns=names, column_types=dict.fromkeys(names, pa.string())
            ),
        )
    except (csv.Error, pa.ArrowException) as error:
        raise InputError(f"{path}: not a CSV file ({str(error).split(':')[0]})") from None
    return Table(path, tuple(names), table.to_pylist())


def _selected(names: Collection[str], columns: Collection[str] | None) -> list[str]:
    return list(dict.fromkeys(name for name in names if columns is None or name in columns))
