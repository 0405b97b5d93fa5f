"""Each table of an evaluation is announced by one line; folders of cxrreport are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner
from workbooks import rows, workbook

from cxrreport import cli
from cxrreport.evaluation.agreement.ratings import read_ratings

TEXTS = {f"RX{n}": f"The heart is normal in size. Finding {n}." for n in range(4)}
PLAIN = [("study_id", "text"), *TEXTS.items()]


def csv(path: Path, header: str, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    lines = [
        delimiter.join([study, f"p{study}", text, "Größe normal."][: header.count(delimiter) + 1])
        for study, text in TEXTS.items()
    ]
    path.write_bytes("\n".join([header, *lines]).encode(encoding))
    return path


def test_tables_of_evaluate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sheet = rows(["Accession", "text"], *([study, text] for study, text in TEXTS.items()))
    tables = {
        "--references": csv(tmp_path / "references.csv", "Accession Number;patient_id;findings;Arzt", ";", "latin-1"),
        "--predictions": workbook(tmp_path / "ours.xlsx", sheet),
        "--baseline": workbook(tmp_path / "other.xlsx", rows(*PLAIN)),
    }
    given = [
        text for option, path in tables.items() for text in (option, f"{'other=' * (option == '--baseline')}{path}")
    ]
    command = ["evaluate", *given, "-o", str(tmp_path / "o"), "--metric", "bleu", "--no-track"]
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 0, result.output
    said = [line for line in caplog.messages if line.startswith(tuple(path.name for path in tables.values()))]
    assert sorted(said) == [
        "other.xlsx: workbook, sheet Sheet1 (1 of 1), header in row 1; 4 rows",
        "ours.xlsx: workbook, sheet Sheet1 (1 of 1), header in row 1; 4 rows; study_id from column 'Accession'",
        "references.csv: CSV, windows-1252, semicolons; 4 rows; study_id from column 'Accession Number'",
    ]


def test_tables_of_readers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "cxrreport")
    (tmp_path / "Reader.csv").write_text("study;report;errors\n1;A;2\n1;B;0\n")
    found = read_ratings([tmp_path / "Reader.csv"], None)
    assert found.values == {"errors": {("1", "A"): {"Reader": 2}, ("1", "B"): {"Reader": 0}}}
    said = "Reader.csv: CSV, utf-8, semicolons; 2 rows; study_id from column 'study', system from 'report'"
    assert caplog.messages == [said]
