"""Conversion between rows and Arrow tables without pandas, which costs every process 30 MB and half a second.

`pyarrow.array`, and with it `Table.from_pylist`, imports pandas to recognise a Series; Arrow's JSON reader accepts the
same rows without it. `parquet.read_table` imports `pyarrow.dataset`, which imports pandas; `ParquetFile` does not.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import json as arrow_json


def table_from_rows(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Convert rows of JSON values to a table; a column that a row lacks is null.

    Raises:
        ArrowInvalid: a value does not have the type of its column, or its name is not in the schema.
    """
    if not rows:
        return pa.Table.from_batches([], schema)
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    return arrow_json.read_json(
        io.BytesIO(lines),
        read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(lines)),
        parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
    ).cast(schema)


def array_from_bytes(values: Sequence[bytes], kind: pa.DataType) -> pa.Array:
    """Convert byte strings, less than 2 GiB in total, to an array of type binary, or string if they are UTF-8."""
    ends = np.cumsum([0, *map(len, values)]).astype(np.int32)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(values))])


def read_columns(path: Path, *columns: str) -> pa.Table:
    """Read a Parquet file, or only the given columns.

    Raises:
        OSError: the file cannot be read.
        ArrowException: it is not a Parquet file.
    """
    with pq.ParquetFile(path) as file:
        return file.read(columns=list(columns) or None, use_threads=False)


def read_schema(path: Path) -> pa.Schema:
    """Read the schema of a Parquet file; errors as in `read_columns`."""
    with pq.ParquetFile(path) as file:
        return file.schema_arrow


def read_blocks(path: Path, *columns: str) -> Iterator[pa.RecordBatch]:
    """Read columns of a Parquet file in blocks of some thousand rows."""
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(4096, columns=list(columns), use_threads=False)
