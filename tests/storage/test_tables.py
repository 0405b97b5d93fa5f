"""One reader for the tables of users: the same rows from every format, and clear errors for damaged files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrreport.errors import InputError
from cxrreport.storage.table_formats.csv_text import csv_rows
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
        ("c.csv", b"study_id,text\n1,a\x00\n"),
        ("d.csv", b"study_id,text\n1,\x81\n"),
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
    monkeypatch.setattr("cxrreport.storage.tables.MAX_BYTES", 1 << 20)
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


SPELLINGS = {
    "comma": "Study_ID,Text\n5000,Né.\n5001,\n".encode(),
    "semicolon": "study id;text\n5000;Né.\n5001;\n".encode(),
    "tab": "STUDY-ID\tTEXT\n5000\tNé.\n5001\t\n".encode(),
    "excel": "sep=;\r\nStudyID;text\r\n5000;Né.\r\n5001;\r\n;\r\n".encode("utf-8-sig"),
    "utf-16": "study_id\ttext\n5000\tNé.\n5001\t\n".encode("utf-16"),
    "latin-1": "study_id,text\n5000,Né.\n5001,\n".encode("latin-1"),
    "quoted": '"study_id","text"\n"5000", "Né."\n"5001",""\n'.encode(),
    "old mac": "study_id,text\r5000,Né.\r5001,\r".encode("cp1252"),
    "pandas": ",study_id,text\n0,5000.0,Né.\n1,5001.0,NaN\n".encode(),
    "R": "study_id,text\n5000,Né.\n5001,NA\n".encode(),
    "SQL": "study_id,text\n5000,Né.\n5001,NULL\n".encode(),
    "spaces": " study_id , text \n 5000 , Né. \n 5001 , <NA> \n".encode(),
}


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz"])
def test_twelve_spellings_of_one_table(tmp_path: Path, name: str, suffix: str) -> None:
    data = SPELLINGS[name]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    expected = [{"study_id": "5000", "text": "Né."}, {"study_id": "5001", "text": ""}]
    assert read_text_table(path, required=("study_id", "text")) == expected
    rows = read_table(path, columns=("study_id", "text")).rows
    assert [row["study_id"] for row in rows] == ["5000", "5001"] and not (rows[1]["text"] or "").strip()


@pytest.mark.parametrize("missing", ["NaN", "nan", "None", "NULL", "NA", "<NA>", "N/A", " na "])
def test_words_for_a_missing_cell_are_not_texts(tmp_path: Path, missing: str) -> None:
    (tmp_path / "a.csv").write_text(f"study_id,text\n1,{missing}\n")
    (tmp_path / "a.jsonl").write_text(json.dumps({"study_id": 1, "text": missing}))
    pq.write_table(pa.table({"study_id": [1.0], "text": [missing], "b": [float("nan")]}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert read_table(tmp_path / name, columns=("text",)).rows == [{"text": None}]
        assert read_text_table(tmp_path / name)[0].items() >= {("study_id", "1"), ("text", "")}
    assert read_table(tmp_path / "a.parquet").rows[0]["b"] is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('study_id,text\n5000,"Clear.\n5001,"Effusion."\n5002,Normal.\n', 2),
        ('study_id,text\n5000,Clear.\n5001,"Effusion.\n5002,Normal.\n', 3),
        ('study_id,text\n5000,"Clear.\n5001,Effusion."\n5002,Normal.\n', 2),
        ('study_id;text\n5000;"two\nlines"\n5001;"secret\n5002;Normal.\n5003;"secret"\n', 4),
        ('study_id,patient_id,text\ns1,p1,"Clear.\ns2,p2,Effusion."\ns3,p3,Normal.\n', 2),
        ('study_id,text\n1,Clear.\n2,"secret\n3,Effusion.\n4,""\n', 3),
        ("study_id,text\n5000,a\n5001,secret,b\n", 3),
    ],
)
def test_rows_that_an_unbalanced_quote_merges_are_named_by_their_line(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=rf"a\.csv, line {line}: not a CSV file") as caught:
        read_table(tmp_path / "a.csv")
    assert "secret" not in str(caught.value)


def test_texts_that_only_look_like_rows(tmp_path: Path) -> None:
    text = "1. Heart, normal.\n2, no effusion\nLungs, clear.\n" + "x" * 200_000
    (tmp_path / "a.csv").write_text(f'study_id,text\n1,"{text}"\n2,"say ""5,6"""\n3,a 5" tube\n')
    texts = [row["text"] for row in read_table(tmp_path / "a.csv").rows]
    assert texts == [text, 'say "5,6"', 'a 5" tube']


def test_a_table_that_was_not_read_to_its_end_does_not_limit_the_texts_of_another(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("study_id,text\n1,a\n2,b\n")
    text = "x" * 200_000
    (tmp_path / "b.csv").write_text(f"study_id,text\n1,{text}\n2,{text}\n")
    _, unfinished = csv_rows(tmp_path / "a.csv", (tmp_path / "a.csv").read_text(), 1 << 20)
    next(unfinished)
    _, lines = csv_rows(tmp_path / "b.csv", (tmp_path / "b.csv").read_text(), 1 << 20)
    next(lines)
    del unfinished
    assert [cells for _, cells in lines] == [["1", text], ["2", text]]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("study_id,Study ID\n1,2\n")
    with pytest.raises(InputError, match="several columns are named study_id"):
        read_text_table(tmp_path / "a.csv")


def test_ids_that_are_numbers_and_ids_that_only_look_like_some(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("study_id,patient_id\n1.0,10.0\n1.1,11\n")
    rows = read_text_table(tmp_path / "a.csv")
    assert [(row["study_id"], row["patient_id"]) for row in rows] == [("1.0", "10"), ("1.1", "11")]


@pytest.mark.parametrize("name", ["image", "study_id"])
@pytest.mark.parametrize("value", ["a\\u0000", "\\ud800", "\ufffd"])
def test_ids_and_file_names_that_lost_characters_are_refused(tmp_path: Path, name: str, value: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"{name}": "b"}}\n{{"{name}": "{value}"}}\n')
    with pytest.raises(InputError, match=f"row 2: {name} has a NUL"):
        read_text_table(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"study_id,text\n1,a\n2,b\0\n", "line 3: a NUL, which no text has"),
        (b"study_id,text\r1,a\r2,b\0\r", "line 3: a NUL, which no text has"),
        ("study_id,text\n1,a\n2,b\0\n".encode("utf-16"), "line 3: a NUL, which no text has"),
        (b"study_id,text\n1,\xc3\xa9\n2,\x81\n", "line 3: neither UTF-8"),
        (b"study_id,text\n1,\xc3\xa9\n2,\xe9\x01\n", "line 3: neither UTF-8"),
        ("study_id,text\n1,é\n".encode("utf-16") + b"\x00\xd8\n\0", "line 3: neither UTF-8"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x01\x00\x00\xff\xff", "line 1: "),
    ],
)
def test_a_character_that_is_no_text_is_an_error_with_its_line(tmp_path: Path, data: bytes, said: str) -> None:
    """One sentence for the whole table: what does not decode may have changed its neighbours too."""
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(InputError, match=rf"a\.csv, {said}.*; export the table again as UTF-8, or correct that line"):
        read_table(tmp_path / "a.csv")


def test_another_name_stands_for_a_column_that_a_row_lacks(tmp_path: Path) -> None:
    rows = [{"study": "1"}, {"study": "2", "rater": "A"}, {"study": "3", "rater": "B", "reader": "C"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_text_table(tmp_path / "a.jsonl", others={"study": "study_id", "rater": "reader"})
    assert read == [
        {"study_id": "1"},
        {"study_id": "2", "reader": "A"},
        {"study_id": "3", "rater": "B", "reader": "C"},
    ]
