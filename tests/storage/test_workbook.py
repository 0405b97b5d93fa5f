"""Workbooks: the same rows as from CSV, and a sentence for everything that would change them."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from workbooks import MAIN, STRICT, rows, text, workbook

from cxrreport.errors import InputError
from cxrreport.storage.tables import is_table, read_table, read_text_table

HEADER = ["Study ID", "Findings"]
ROWS = [{"study_id": "1", "findings": "Clear."}, {"study_id": "2", "findings": ""}]
PLAIN = rows(HEADER, ["1", "Clear."], ["2"])


def value(xml: str, tmp_path: Path, header: str = "text", **options: Any) -> str:
    """The text of one cell `B2`, given as `attributes>content`."""
    sheet = rows(["key", header], ["row", f'<c r="B2" {xml}</c>'])
    (row,) = read_text_table(workbook(tmp_path / "a.xlsx", sheet, **options))
    return next(text for name, text in row.items() if name != "key")


@pytest.mark.parametrize("name", ["a.xlsx", "A.XLSM", "a.csv", "a.xls", "a.tsv"])
def test_a_workbook_is_read_under_any_name(tmp_path: Path, name: str) -> None:
    assert is_table(tmp_path / name)
    assert read_text_table(workbook(tmp_path / name, PLAIN), required=("study_id",)) == ROWS


@pytest.mark.parametrize("name", ["a.xlsx", "a.xls"])
def test_a_csv_file_with_the_name_of_a_workbook(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("Study ID;Findings\n1;Clear.\n2;\n")
    assert read_text_table(tmp_path / name) == ROWS
    with pytest.raises(InputError, match=r"not a workbook, so it has no sheet S"):
        read_table(tmp_path / name, sheet="S")


@pytest.mark.parametrize(
    ("xml", "wanted"),
    [
        ("><v>12345678.0</v>", "12345678"),
        ("><v>1.5E3</v>", "1500"),
        ('t="n"><v>0.30000000000000004</v>', "0.3"),
        ("><v>-2.5</v>", "-2.5"),
        ('s="2"><v>12345</v>', "00012345"),
        ('s="1"><v>45413</v>', "2024-05-01"),
        ('s="3"><v>45413.572916666664</v>', "2024-05-01T13:45:00"),
        ('s="1"><v>59</v>', "1900-02-28"),
        ('s="1"><v>61</v>', "1900-03-01"),
        ('s="4"><v>1.0625</v>', "25:30:00"),
        ('s="3"><v>0.354166666666667</v>', "08:30:00"),
        ('s="5"><v>3.5</v>', "3.5"),
        ('t="d"><v>2024-05-01T00:00:00Z</v>', "2024-05-01"),
        ('t="d"><v>13:45:00</v>', "13:45:00"),
        ('t="b"><v>1</v>', "TRUE"),
        ('t="b"><v>0</v>', "FALSE"),
        ('t="str"><f>A1&amp;"x"</f><v>keyx</v>', "keyx"),
        ('t="str"><f>""</f><v></v>', ""),
        ('t="s"><v>0</v>', "rich text"),
        ('t="s"><v>1</v>', "one\r\ntwo \r three"),  # a text of this form is one that came from XML before
        ('t="inlineStr"><is><r><t>a</t></r><r><rPr><b/></rPr><t xml:space="preserve"> b</t></r></is>', "a b"),
        ('t="e"><v>#N/A</v>', ""),
        ('s="6"><v>7</v>', "7"),
        ('s="1"><v>20240501123</v>', "20240501123"),  # formatted as a date that does not exist
        ("/><c>", ""),
    ],
)
def test_values(tmp_path: Path, xml: str, wanted: str) -> None:
    strings = (
        '<si><r><t xml:space="preserve">rich </t></r><r><rPr><b/></rPr><t>text</t></r><rPh sb="0" eb="4"><t>KANA</t>'
        "</rPh></si><si><t>one_x000D_\ntwo _x005F_x000D_ three</t></si>"
    )
    assert value(xml, tmp_path, strings=strings) == wanted


def test_days_from_1904(tmp_path: Path) -> None:
    assert value('s="1"><v>43951</v>', tmp_path, before='<workbookPr date1904="1"/>') == "2024-05-01"


@pytest.mark.parametrize(
    ("xml", "options", "sentence"),
    [
        ("><f>1+1</f>", {}, r"cell B2: a formula that was not calculated; open .* and save it"),
        ("><f>1+1</f><v/>", {}, "not calculated"),
        ("><f>1+1</f><v>0</v>", {"after": '<calcPr fullCalcOnLoad="1"/>'}, "not calculated"),
        ("><v>1234567890123456</v>", {"header": "Study ID"}, "study_id is a number of 16 digits or more; .* as text"),
        ("><v>1.23456789012346E+15</v>", {"header": "uid"}, "16 digits or more"),
        ("><v>12.1</v>", {"header": "StudyInstanceUID"}, "study_id is a number with decimals"),
        ('s="1"><v>45000</v>', {"header": "patient_id"}, "patient_id is a date"),
        ("><v>abc</v>", {}, "damaged workbook"),
        ('t="s"><v>9</v>', {}, "damaged workbook"),
        ('t="s"><v>-1</v>', {}, "damaged workbook"),
        ("><v>NaN</v>", {}, "damaged workbook"),
        ('s="99"><v>1</v>', {}, "damaged workbook"),
        ("><v>&boom;</v>", {}, "damaged workbook .*undefined entity"),
    ],
)
def test_cells_that_are_refused(tmp_path: Path, xml: str, options: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=rf"a\.xlsx.*{sentence}") as caught:
        value(xml, tmp_path, **options)
    assert "\n" not in str(caught.value) and "abc" not in str(caught.value)


def test_long_numbers_are_no_matter_where_no_id_is(tmp_path: Path) -> None:
    assert value("><v>1234567890123456</v>", tmp_path) == "1234567890123456"


def test_errors_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cells = [["1", '<c r="B2" t="e"><f>-Keine</f><v>#NAME?</v></c>'], ["2", '<c r="B3" t="e"><v>#NAME?</v></c>']]
    found = read_text_table(workbook(tmp_path / "a.xlsx", rows(HEADER, *cells)))
    assert [row["findings"] for row in found] == ["", ""]
    assert "read as empty: 2 #NAME? in column Findings" in caplog.text


def test_strict_files(tmp_path: Path) -> None:
    assert read_text_table(workbook(tmp_path / "a.xlsx", PLAIN, namespaces=STRICT)) == ROWS


def test_what_was_read_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sheets = {"Legend": "<sheetData/>", "Data": PLAIN.replace('<row r="3">', '<row r="3" hidden="1">')}
    path = workbook(tmp_path / "a.xlsx", sheets)
    assert read_text_table(path) == read_text_table(path) == ROWS
    assert caplog.messages == [
        "a.xlsx: workbook, sheet Data (2 of 2), header in row 1; 2 rows (1 hidden)",
    ]


def test_a_workbook_of_a_library(tmp_path: Path) -> None:
    """A hidden sheet, a header of two rows with merged cells, ids with an apostrophe, formatting without values."""
    book = openpyxl.Workbook()
    book.active.append(["study_id", "findings"])
    book.active.append(["9", "Old."])
    book.active.sheet_state = "hidden"
    sheet = book.create_sheet("Befunde")
    for line in (
        [],
        ["Study ID", "Report"],
        [None, "Findings", "Impression"],
        ["00012", "Clear.", "b"],
        ["1.2.3", "c"],
    ):
        sheet.append(line)
    sheet.merge_cells("A2:A3")
    sheet.merge_cells("B2:C2")
    sheet["A4"].quotePrefix = True
    for column in range(4, 400):
        sheet.cell(4, column).number_format = "0.00"
    book.save(tmp_path / "a.xlsx")
    found = read_text_table(tmp_path / "a.xlsx", optional=("findings", "impression"))
    assert [(row["study_id"], row["findings"], row["impression"]) for row in found] == [
        ("00012", "Clear.", "b"),
        ("1.2.3", "c", ""),
    ]


def test_names_of_parts_with_backslashes(tmp_path: Path) -> None:
    with zipfile.ZipFile(workbook(tmp_path / "a.xlsx", PLAIN)) as whole:
        parts = {name.replace("/", "\\"): whole.read(name).decode() for name in whole.namelist()}
    assert read_text_table(archive(tmp_path / "b.xlsx", parts)) == ROWS


def test_an_east_asian_date(tmp_path: Path) -> None:
    styles = f'<styleSheet xmlns="{MAIN}"><cellXfs><xf numFmtId="31"/></cellXfs></styleSheet>'
    assert value('s="0"><v>45413</v>', tmp_path, parts={"xl/styles.xml": styles}) == "2024-05-01"


def test_several_sheets_need_a_name(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", {"One": PLAIN, "Two": rows(HEADER, ["3", "Old."]), "Empty": "<sheetData/>"})
    with pytest.raises(InputError, match=r"2 sheets have data \(One, Two\); name one"):
        read_text_table(path)
    assert [row["study_id"] for row in read_text_table(path, sheet="two")] == ["3"]
    with pytest.raises(InputError, match="no sheet Three; the workbook has One, Two, Empty"):
        read_text_table(path, sheet="Three")


@pytest.mark.parametrize("state", ["hidden", "veryHidden"])
def test_hidden_sheets_are_read_if_they_are_named(tmp_path: Path, state: str) -> None:
    path = workbook(tmp_path / "a.xlsx", {"One": PLAIN, "Two": rows(HEADER, ["3", "Old."])}, states={"Two": state})
    assert read_text_table(path) == ROWS
    assert len(read_text_table(path, sheet="Two")) == 1
    workbook(path, {"Two": PLAIN}, states={"Two": state})
    with pytest.raises(InputError, match=r"no visible sheet has data \(sheets: Two\)"):
        read_text_table(path)


@pytest.mark.parametrize(
    "lines",
    [
        [["Befunde 2024"], [], HEADER],
        [["Exported", "1.5.2024", "by", "RIS"], ["", "Filter: CR"], HEADER],
        [["Studie", "Bericht", "Arzt"], [*HEADER, ""]],
        [["Study ID", "Report"], ["", "Findings", "Impression"]],
    ],
    ids=["title", "table above", "two headers", "merged headers"],
)
def test_rows_above_the_header(tmp_path: Path, lines: list[list[str]]) -> None:
    data = [["1", "Clear."], ["2"]]
    sheet = rows(*lines, *data, *[[] for _ in range(3)]) + '<mergeCells><mergeCell ref="A1:B1"/></mergeCells>'
    found = read_text_table(workbook(tmp_path / "a.xlsx", sheet), optional=("findings", "impression"))
    assert [(row["study_id"], row["findings"]) for row in found] == [("1", "Clear."), ("2", "")]


def test_a_header_in_another_language_below_a_title(tmp_path: Path) -> None:
    sheet = rows(["Befunde 2024"], ["Nummer", "Arzt", "Befund"], ["1", "M", "Frei."])
    path = workbook(tmp_path / "a.xlsx", sheet)
    with pytest.raises(InputError, match="no column study_id; found arzt, befund, nummer"):
        read_text_table(path, required=("study_id",))
    renamed = {"Nummer": "study_id", "Befund": "report"}
    assert read_text_table(path, required=("study_id",), renamed=renamed)[0]["report"] == "Frei."


def test_merged_cells_count_for_all_their_rows(tmp_path: Path) -> None:
    sheet = rows(["patient_id", *HEADER], ["p1", "1", "a"], ["", "2", "b"], ["p2", "3", "c"], ["", "4", "d"])
    sheet += '<mergeCells count="2"><mergeCell ref="A2:A3"/><mergeCell ref="B1:C1"/></mergeCells>'
    found = read_text_table(workbook(tmp_path / "a.xlsx", sheet))
    assert [row["patient_id"] for row in found] == ["p1", "p1", "p2", ""]


def test_the_stated_size_does_not_matter(tmp_path: Path) -> None:
    for dimension in ('<dimension ref="A1"/>', '<dimension ref="A1:XFD1048576"/>'):
        far = '<row r="1048576"><c r="XFD1048576" s="1"/></row></sheetData>'
        sheet = dimension + PLAIN.replace("</sheetData>", far)
        assert read_text_table(workbook(tmp_path / "a.xlsx", sheet)) == ROWS


def test_parts_that_are_named_and_missing(tmp_path: Path) -> None:
    workbook(tmp_path / "a.xlsx", PLAIN)
    with zipfile.ZipFile(tmp_path / "a.xlsx") as whole:
        parts = {name: whole.read(name).decode() for name in whole.namelist() if "xl/s" not in name}
    assert read_text_table(archive(tmp_path / "b.xlsx", parts)) == ROWS
    del parts["xl/worksheets/sheet1.xml"]
    with pytest.raises(InputError, match="no visible sheet has data"):
        read_text_table(archive(tmp_path / "b.xlsx", parts))


def test_cells_without_places(tmp_path: Path) -> None:
    sheet = PLAIN
    for place in ("A1", "B1", "A2", "B2", "A3", "1", "2", "3"):
        sheet = sheet.replace(f' r="{place}"', "")
    assert read_text_table(workbook(tmp_path / "a.xlsx", sheet)) == ROWS


COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.xlsx", COMPOUND + bytes(1 << 10) + "EncryptedPackage".encode("utf-16-le"), "a workbook with a password"),
        ("a.xls", COMPOUND + bytes(1 << 10) + "Workbook".encode("utf-16-le"), "a workbook of Excel 97 to 2003"),
        ("a.csv", COMPOUND, "a workbook of Excel 97 to 2003"),
        ("a.xls", b"\r\n<html><table>", "HTML or XML"),
        ("a.xls", b'\xef\xbb\xbf<?xml version="1.0"?><?mso-application progid="Excel.Sheet"?>', "HTML or XML"),
        ("a.xlsx", b"PK\x03\x04 and nothing else", "a damaged workbook"),
        ("a.xlsx", b"", "it is empty"),
        ("a.xlsx", bytes(range(256)), "neither UTF-8"),
    ],
)
def test_other_files(tmp_path: Path, name: str, data: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=sentence) as caught:
        read_text_table(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def archive(path: Path, parts: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in parts.items():
            file.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"mimetype": "application/vnd.oasis.opendocument.spreadsheet", "content.xml": ""}, "OpenDocument"),
        ({"reports.csv": "study_id,text\n"}, "a ZIP archive that is no workbook"),
        (
            {"[Content_Types].xml": "<Types/>", "xl/workbook.bin": ""},
            "XLSB",
        ),
        ({"xl/workbook.xml": '<document xmlns="urn:word"/>'}, "no workbook"),
    ],
)
def test_other_archives(tmp_path: Path, parts: dict[str, str], sentence: str) -> None:
    for name in ("a.xlsx", "a.ods", "a.csv"):
        with pytest.raises(InputError, match=sentence):
            read_text_table(archive(tmp_path / name, parts))


def test_a_workbook_without_sheets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no visible sheet has data \(sheets: none\)"):
        read_text_table(workbook(tmp_path / "a.xlsx", {}))


def test_cut_off_anywhere(tmp_path: Path) -> None:
    whole = workbook(tmp_path / "a.xlsx", PLAIN).read_bytes()
    for size in range(4, len(whole), 37):
        (tmp_path / "b.xlsx").write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"b\.xlsx: a damaged workbook"):
            read_text_table(tmp_path / "b.xlsx")


def test_changed_bytes(tmp_path: Path) -> None:
    """Any change is an error that names the file, or changes nothing that is read."""
    whole = workbook(tmp_path / "a.xlsx", PLAIN).read_bytes()
    for place in range(0, len(whole), 7):
        data = bytearray(whole)
        data[place] ^= 0x5A
        (tmp_path / "b.xlsx").write_bytes(data)
        try:
            found = read_text_table(tmp_path / "b.xlsx")
        except InputError as error:
            said = str(error)
            found = ROWS if "b.xlsx" in said and "\n" not in said else []
        assert found == ROWS, place


def test_the_first_row_of_a_workbook(tmp_path: Path) -> None:
    sheet = rows(HEADER, ["", "", text("C2", "a note beside the table")], ["1", "Clear."], ["2"])
    assert read_text_table(workbook(tmp_path / "a.xlsx", sheet), most=1) == ROWS[:1]


def test_a_sheet_with_a_header_only(tmp_path: Path) -> None:
    assert read_text_table(workbook(tmp_path / "a.xlsx", rows(HEADER)), required=("study_id",)) == []
    with pytest.raises(InputError, match="the sheet has no data"):
        read_text_table(workbook(tmp_path / "a.xlsx", rows([], [])))


def test_cells_outside_of_the_header_are_left_out(tmp_path: Path) -> None:
    sheet = rows(HEADER, ["1", "Clear.", text("C2", "note")], ["2"], [text("D4", "far")], [" ", " "])
    assert read_text_table(workbook(tmp_path / "a.xlsx", sheet)) == ROWS
