"""Rows become the same tables as with pyarrow, without an import of pandas."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest

from cxrreport.storage.parquet import array_from_bytes, table_from_rows

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("count", pa.int32()),
        ("score", pa.float64()),
        ("done", pa.bool_()),
        ("notes", pa.list_(pa.string())),
        ("boxes", pa.list_(pa.struct([("label", pa.string()), ("top", pa.float64())]))),
    ],
    metadata={"digest": "1"},
)
ROWS = [
    {"id": "2024-01-01", "count": 1, "score": 0.1 + 0.2, "done": True, "notes": [], "boxes": []},
    {"id": "é\n\u2028\U0001f600", "count": 2**31 - 1, "score": -1e-300, "done": False, "notes": ["a", None]}
    | {"boxes": [{"label": "tube", "top": 3.0}, {"label": "x", "top": None}]},
    {"id": "", "count": None, "score": 7, "done": None, "notes": None, "boxes": None},
    {"id": "x" * 2_000_000},
]


@pytest.mark.parametrize("rows", [ROWS, ROWS[2:3], []])
def test_rows_are_those_of_pyarrow(rows: list[dict[str, object]]) -> None:
    made = table_from_rows(rows, SCHEMA)
    assert made.equals(pa.Table.from_pylist(rows, SCHEMA), check_metadata=True)
    assert made.schema.names == SCHEMA.names


@pytest.mark.parametrize("row", [{"id": 1}, {"count": "one"}, {"count": 2**31}, {"absent": 1}])
def test_a_value_that_does_not_fit_is_an_error(row: dict[str, object]) -> None:
    with pytest.raises(pa.ArrowInvalid):
        table_from_rows([row], SCHEMA)


def test_columns_of_bytes() -> None:
    values = [b"", b"\x00\xff", "é".encode()]
    assert array_from_bytes(values, pa.binary()).equals(pa.array(values, pa.binary()))
    assert array_from_bytes([], pa.string()).equals(pa.array([], pa.string()))


def test_ingest_writes_without_pandas() -> None:
    """In a separate process, because the tests have imported pandas."""
    code = """if True:
        import sys, tempfile
        from pathlib import Path
        from cxrreport.dataset import Manifest, write_exclusion_log, write_manifest
        from cxrreport.dataset import write_image_shard
        from cxrreport.records import Exclusion, Reason
        folder = Path(tempfile.mkdtemp())
        write_image_shard(folder / "images/0.parquet", [("1", b"png")])
        write_exclusion_log(folder, [Exclusion(source="a", reason=Reason.NOT_DICOM)])
        write_exclusion_log(folder, [])
        write_manifest(folder, [], {})
        Manifest.open(folder)
        print("pandas" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
