"""Rows to Arrow tables and back without pandas, which costs every process 30 MB and half a second.

`pyarrow.array`, and with it `Table.from_pylist`, imports it to see whether it was given a Series; Arrow's JSON reader
takes the same rows and does not. `parquet.read_table` imports `pyarrow.dataset`, which does; `ParquetFile` does not.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import json as arrow_json


def table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows of JSON values, whose names are all in the schema; a name that a row lacks is null there.

    Raises:
        ArrowInvalid: a value is not of its column's type, or its name not in the schema.
    """
    if not rows:
        return pa.Table.from_batches([], schema)
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    return arrow_json.read_json(
        io.BytesIO(lines),
        read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(lines)),
        parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
    ).cast(schema)


def column(values: Sequence[bytes], kind: pa.DataType) -> pa.Array:
    """Bytes as an array of binary, or UTF-8 as one of strings; less than 2 GiB together."""
    ends = np.cumsum([0, *map(len, values)]).astype(np.int32)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(values))])


def read(path: Path, *columns: str) -> pa.Table:
    """A Parquet file, or these columns of it.

    Raises:
        OSError: the file cannot be read.
        ArrowException: it is no Parquet file.
    """
    with pq.ParquetFile(path) as file:
        return file.read(columns=list(columns) or None, use_threads=False)
