"""One reader for the tables of users: the same rows from every format, and clear errors for damaged files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrreport.errors import InputError
from cxrreport.storage.tables import read_table, read_text_table


def test_values_as_text(tmp_path: Path) -> None:
    text = '\ufeffStudy_ID, Findings\n1,"two\nlines"\n2,\n'
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(text.encode()))
    expected = [{"study_id": "1", "findings": "two\nlines"}, {"study_id": "2", "findings": ""}]
    assert read_text_table(tmp_path / "a.csv") == read_text_table(tmp_path / "b.csv.gz") == expected
    pq.write_table(pa.table({"study_id": [1, 2], "findings": ["two\nlines", None]}), tmp_path / "c.parquet")
    assert read_text_table(tmp_path / "c.parquet", required=("study_id",)) == expected


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b"\xff\xfe\x00"),
        ("a.csv.gz", b"no gzip"),
        ("a.parquet", b"no parquet"),
        ("a.xlsx", b""),
        ("b.csv", None),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, name: str, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        read_text_table(tmp_path / name)


def test_missing_columns_are_listed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Study_ID,text\n")
    assert read_text_table(tmp_path / "a.csv", required=("study_id",)) == []
    with pytest.raises(InputError, match="no column findings, split; found study_id, text"):
        read_text_table(tmp_path / "a.csv", required=("findings", "study_id", "split"))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a,b,,\n1,2,,\n\n3,,,\n", [{"a": "1", "b": "2"}, {"a": "3", "b": ""}]),
        ("\n\na,b\n1,2\n", [{"a": "1", "b": "2"}]),
        ("a,b\r1,2\r", [{"a": "1", "b": "2"}]),
    ],
)
def test_csv_files_as_spreadsheets_write_them(tmp_path: Path, text: str, rows: list[dict[str, str]]) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert read_table(tmp_path / "a.csv", columns=("a", "b", "c")).rows == rows


@pytest.mark.parametrize("text", ["a,b\n1\n", "a,b\n1,secret,3\n"])
def test_rows_of_another_length_are_refused_without_their_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match="not a CSV file") as caught:
        read_text_table(tmp_path / "a.csv")
    assert "secret" not in str(caught.value) and caught.value.__cause__ is None


def test_a_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxrreport.storage.tables.MAX_CSV_BYTES", 1 << 20)
    packed = tmp_path / "p.csv.gz"
    packed.write_bytes(gzip.compress(b"study_id,text\n1," + b"a" * (1 << 20)))
    assert packed.stat().st_size < 5000
    for read in (read_table, read_text_table):
        with pytest.raises(InputError, match=r"p\.csv\.gz: more than 1 MiB"):
            read(packed)


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("[" * 100_000)
    with pytest.raises(InputError, match="line 1: not JSON"):
        read_table(tmp_path / "p.jsonl")
