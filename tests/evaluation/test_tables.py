from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrreport.errors import InputError, ScoreError
from cxrreport.evaluation.inputs import tables
from cxrreport.evaluation.inputs.tables import most_frequent, read_predictions, read_references, split_sections

BOTH = "findings+impression"
ROWS: list[dict[str, Any]] = [
    {"study_id": "s1", "text": "FINDINGS: Clear lungs.\nIMPRESSION: Normal."},
    {"study_id": "s2", "text": 'No "effusion", nor\npneumothorax; Ünïcödé'},
    {"study_id": "s3", "text": ""},
]
CHOSEN = {"s1": "Clear lungs. Normal.", "s2": 'No "effusion", nor\npneumothorax; Ünïcödé', "s3": ""}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        names = list(rows[0])
        lines = [",".join(names)]
        lines += [",".join('"' + str(row[name]).replace('"', '""') + '"' for name in names) for row in rows]
        data = ("\r\n".join(lines) + "\r\n").encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.csv.gz", "p.parquet", "predictions.parquet"])
def test_every_format_reads_the_same(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, ROWS)
    found = read_predictions(tmp_path if name == "predictions.parquet" else path, BOTH)
    assert found.texts == CHOSEN
    assert found.without_headers == 1
    assert found.source == path and len(found.sha256) == 64


def test_byte_order_mark_numbers_as_ids_and_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes("\ufeffstudy_id,score,text\n50414267,0.5,Clear.\n".encode())
    assert read_predictions(path, BOTH).texts == {"50414267": "Clear."}
    write(tmp_path / "p.jsonl", [{"study_id": 50414267, "text": "Clear.", "score": [1]}])
    assert read_predictions(tmp_path / "p.jsonl", BOTH).texts == {"50414267": "Clear."}


def test_line_separators_inside_a_text_do_not_end_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"study_id": "1", "text": "one\u2028two\x85three"}])
    assert read_predictions(path, BOTH).texts == {"1": "one\ntwo\nthree"}


@pytest.mark.parametrize(
    "text",
    [
        "<p>FINDINGS: Clear.<br>IMPRESSION: Heart &lt; 15 cm.</p>",
        r"{\rtf1\b FINDINGS:\b0  Clear.\par IMPRESSION: Heart < 15 cm.}",
        "\u202bFINDINGS: Cl\u200bear.\x07\nIMPRESSION: Heart < 15 cm.",
    ],
)
def test_pasted_texts_are_read_as_text(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "p.jsonl", [{"study_id": "1", "text": text}])
    assert read_predictions(path, "impression").texts == {"1": "Heart < 15 cm."}


def test_a_text_of_a_million_characters(tmp_path: Path) -> None:
    text = "effusion " * 120_000
    path = write(tmp_path / "p.csv", [{"study_id": "1", "text": text}, {"study_id": "2", "text": "Clear."}])
    found = read_predictions(path, BOTH).texts
    assert found["1"] == text.strip() and found["2"] == "Clear."
    assert tables.too_long(found["1"]) and not tables.too_long("word " * 800) and tables.too_long("word, " * 401)


@pytest.mark.parametrize(("section", "expected"), [("findings", "F."), ("impression", "I."), (BOTH, "F. I.")])
def test_sections_go_before_text(tmp_path: Path, section: Any, expected: str) -> None:
    rows = [{"study_id": "1", "text": "something else", "findings": " F. ", "impression": "I."}]
    assert read_predictions(write(tmp_path / "p.parquet", rows), section).texts == {"1": expected}


def test_empty_sections_fall_back_to_the_text(tmp_path: Path) -> None:
    # What generate writes for a model that does not answer in sections.
    rows = [{"study_id": "1", "text": "heart large", "findings": "", "impression": ""}]
    found = read_predictions(write(tmp_path / "p.parquet", rows), "impression")
    assert found.texts == {"1": "heart large"} and found.without_headers == 1


def test_a_section_that_the_text_does_not_have_is_empty(tmp_path: Path) -> None:
    rows = [{"study_id": "1", "text": "FINDINGS: Clear."}]
    assert read_predictions(write(tmp_path / "p.parquet", rows), "impression").texts == {"1": ""}


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_text_is_not_an_empty_one(tmp_path: Path, missing: float | None) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"study_id": "1", "text": missing}) + "\n" + json.dumps({"study_id": "2", "text": ""}))
    assert read_predictions(path, BOTH).texts == {"1": None, "2": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FINDINGS: A. IMPRESSION: B.", {"findings": "A.", "impression": "B."}),
        ("INDICATION: X.\nFINDINGS:\nA.\n\nIMPRESSIONS: B.", {"findings": "A.", "impression": "B."}),
        ("findings: A.\nConclusion : B.", {"findings": "A.", "impression": "B."}),
        ("A. IMPRESSION: B.", {"findings": "A.", "impression": "B."}),
        ("IMPRESSION: B.", {"impression": "B."}),
        ("FINDINGS: A. FINDINGS: C.", {"findings": "A. C."}),
        ("FINDINGS: A. RECOMMENDATION: CT.", {"findings": "A."}),
        ("The findings: are normal", {}),
        ("No header at all.", {}),
        ("FINDINGS:", {"findings": ""}),
        ("", {}),
    ],
)
def test_headers(text: str, expected: dict[str, str]) -> None:
    assert split_sections(text) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", b'{"study_id": "1", "text": "\x81"}', "neither UTF-8"),
        ("p.csv", b"study_id,text\n1,\x81t\xe9\n", "neither UTF-8"),
        ("p.csv", b"study_id,text\n1,a,b\n", "not a CSV file"),
        ("p.csv", b"study_id,text\n", "has no rows"),
        ("p.csv", b"", "not a CSV file"),
        ("p.csv.gz", b"study_id,text\n1,a\n", "cannot be read"),
        ("p.jsonl", b'{"study_id": "1", "text": "a"}\nnot json\n', "line 2: not JSON"),
        ("p.jsonl", b'["1"]\n', "line 1: not a JSON object"),
        ("p.jsonl", b'{"id": "1", "text": "a"}\n', "no column study_id"),
        ("p.jsonl", b'{"study_id": "1", "report": "a"}\n', "no column text, findings or impression"),
        ("p.jsonl", b'{"study_id": "1", "text": ["a"]}\n', "row 1: text has type list"),
        ("p.jsonl", b'{"study_id": "1", "text": 5}\n', "row 1: text has type int"),
        ("p.jsonl", b'{"study_id": 1.5, "text": "a"}\n', "row 1: study_id is no id"),
        ("p.jsonl", b'{"study_id": NaN, "text": "a"}\n', "row 1: study_id is missing"),
        ("p.jsonl", b'{"study_id": "  ", "text": "a"}\n', "row 1: study_id is no id"),
        ("p.jsonl", b'{"study_id": null, "text": "a"}\n', "row 1: study_id is missing"),
        ("p.parquet", b"PAR1 but no more", "not a Parquet file"),
        ("p.xlsx", b"", "it is empty"),
        ("p.xlsx", b"PK\x03\x04", "a damaged workbook"),
        ("p.docx", b"", "expected the output folder of `generate`"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_predictions(path, BOTH)
    assert str(path) in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"p\.jsonl: not found"):
        read_predictions(tmp_path / "p.jsonl", BOTH)
    with pytest.raises(InputError, match=r"predictions\.parquet: not found"):
        read_predictions(tmp_path, BOTH)
    with pytest.raises(InputError, match=r"manifest\.parquet: not found"):
        read_references(tmp_path, BOTH)


def test_duplicates_are_listed(tmp_path: Path) -> None:
    rows = [{"study_id": study, "text": "x"} for study in ("b", "a", "b", "c", "a")]
    with pytest.raises(ScoreError, match="occur twice: a, b;"):
        read_predictions(write(tmp_path / "p.parquet", rows), BOTH)


def reference(study: str, **changes: str) -> dict[str, Any]:
    row = {"study_id": study, "patient_id": "p" + study, "split": "test", "findings": "F" + study, "impression": "I"}
    return row | changes


def test_a_manifest_has_one_row_per_image(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([reference("1"), reference("1"), reference("2", split="train")])
    pq.write_table(table.replace_schema_metadata({"cxrreport.digest": "abc"}), tmp_path / "manifest.parquet")
    found = read_references(tmp_path, "findings")
    assert found.texts == {"1": "F1", "2": "F2"}
    assert found.patients == {"1": "p1", "2": "p2"} and found.splits == {"1": "test", "2": "train"}
    assert found.digest == "abc"


@pytest.mark.parametrize("change", [{"patient_id": "other"}, {"split": "train"}, {"findings": "other"}])
def test_a_manifest_that_contradicts_itself(tmp_path: Path, change: dict[str, str]) -> None:
    write(tmp_path / "manifest.parquet", [reference("1"), reference("1", **change)])
    with pytest.raises(ScoreError, match="study 1 occurs twice with different"):
        read_references(tmp_path, BOTH)


def test_a_table_of_references(tmp_path: Path) -> None:
    found = read_references(write(tmp_path / "r.csv", [reference("1"), reference("2")]), BOTH)
    assert found.texts == {"1": "F1 I", "2": "F2 I"} and len(found.digest) == 64
    with pytest.raises(ScoreError, match="study 1 occurs twice; keep"):
        read_references(write(tmp_path / "t.csv", [reference("1"), reference("1")]), BOTH)
    with pytest.raises(InputError, match="row 1: split must be one of train, validate, test"):
        read_references(write(tmp_path / "s.csv", [reference("1", split="val")]), BOTH)
    with pytest.raises(InputError, match="no column patient_id"):
        read_references(write(tmp_path / "q.csv", [{"study_id": "1", "findings": "x"}]), BOTH)
    with pytest.raises(InputError, match="no column findings or impression"):
        read_references(write(tmp_path / "u.csv", [{"study_id": "1", "patient_id": "1", "text": "x"}]), BOTH)


def test_most_frequent_report_of_the_training_split(tmp_path: Path) -> None:
    rows = [reference(str(n), findings="usual", split="train") for n in range(2)]
    rows += [reference(str(n + 10), findings="also", split="train") for n in range(2)]
    rows += [reference(str(n + 20), findings="test only") for n in range(5)]
    rows += [reference(str(n + 30), findings="", impression="", split="train") for n in range(6)]
    assert most_frequent(read_references(write(tmp_path / "r.parquet", rows), BOTH)) == "also I"
    assert most_frequent(read_references(write(tmp_path / "s.parquet", rows[4:9]), BOTH)) is None


def test_messages_hold_no_report_text(tmp_path: Path) -> None:
    rows = [{"study_id": "1", "text": "secret words"}, {"study_id": "1", "text": "secret words"}]
    with pytest.raises(ScoreError) as caught:
        read_predictions(write(tmp_path / "p.csv", rows), BOTH)
    assert "secret" not in str(caught.value)
    path = tmp_path / "bad.csv"
    path.write_bytes(b"study_id,text\n1,secret,secret\n")
    with pytest.raises(InputError) as broken:
        read_predictions(path, BOTH)
    assert "secret" not in str(broken.value)
