"""Tables of evaluations as workbooks: the same as CSV."""

from __future__ import annotations

from pathlib import Path

import pytest
from workbooks import rows, workbook

from cxrreport.errors import InputError
from cxrreport.evaluation.agreement.ratings import read_ratings
from cxrreport.evaluation.inputs.tables import read_predictions, read_references
from cxrreport.pacs.pull import queries
from cxrreport.settings import PullSettings


def number(place: str, value: float) -> str:
    return f'<c r="{place}"><v>{value}</v></c>'


def test_predictions_and_references(tmp_path: Path) -> None:
    data = [
        [number("A2", 5000.0), number("B2", 7), "Clear.", "", "test"],
        [number("A3", 5001), "p8", "", "Normal.", ""],
    ]
    table = workbook(tmp_path / "a.xlsx", rows(["Study ID", "patient_id", "Findings", "Impression", "split"], *data))
    (tmp_path / "a.csv").write_text(
        "study_id,patient_id,findings,impression,split\n5000.0,7,Clear.,,test\n5001,p8,,Normal.,\n"
    )
    for read in (read_predictions, read_references):
        one, other = (read(tmp_path / name, "findings+impression") for name in ("a.xlsx", "a.csv"))
        assert one.texts == other.texts and set(one.texts) == {"5000", "5001"}
    found = read_references(table, "findings")
    assert found.patients == {"5000": "7", "5001": "p8"} and found.splits == {"5000": "test"}


def test_several_sheets_are_listed(tmp_path: Path) -> None:
    sheet = rows(["study_id", "text"], ["1", "Clear."])
    with pytest.raises(InputError, match=r"2 sheets have data \(A, B\).* keep one"):
        read_predictions(workbook(tmp_path / "a.xlsx", {"A": sheet, "B": sheet}), "findings")


def test_ratings(tmp_path: Path) -> None:
    data = [["1", "A", number("C2", 2.0)], ["1", "B", number("C3", 0)]]
    path = workbook(tmp_path / "Reader.xlsx", rows(["study", "report", "errors"], *data))
    found = read_ratings([path], None)
    assert found.values == {"errors": {("1", "A"): {"Reader": 2}, ("1", "B"): {"Reader": 0}}}


def test_accession_numbers_of_a_pull(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", rows(["Accession Number"], [number("A2", 12345678.0)], ["1.2.840.1"]))
    settings = PullSettings.model_validate(
        {"archive": {"url": "https://pacs/dicom-web"}, "studies": path, "output": tmp_path / "out"}
    )
    assert [(one.query.accession, one.query.study_uid) for one in queries(settings)] == [
        ("12345678", ""),
        ("", "1.2.840.1"),
    ]
