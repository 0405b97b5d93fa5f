"""Tables of reports as hospitals export them: other names of columns, semicolons, Latin-1, accession numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydicom.uid import generate_uid
from typer.testing import CliRunner
from workbooks import MAIN, STYLES, rows, workbook

from cxrreport import cli
from cxrreport.dataset import Manifest
from cxrreport.errors import InputError
from cxrreport.ingestion.ingest import ingest
from cxrreport.settings import IngestSettings

Make = Callable[..., Path]


@pytest.fixture
def studies(tmp_path: Path, make_dataset: Make, write_dataset: Make) -> dict[str, str]:
    """Accession numbers of three studies with their StudyInstanceUIDs."""
    found = {}
    for number in range(3):
        accession, uid = f"RX{1000 + number}", generate_uid()
        ids = {"AccessionNumber": accession, "StudyInstanceUID": uid, "SOPInstanceUID": generate_uid()}
        write_dataset(tmp_path / "in" / f"{number}", make_dataset(PatientID=f"p{number}", **ids))  # type: ignore[arg-type]
        found[accession] = uid
    return found


def read(tmp_path: Path, table: str, encoding: str = "utf-8", **options: object) -> list[str]:
    (tmp_path / "reports.csv").write_bytes(table.encode(encoding))
    given = {
        "input": tmp_path / "in",
        "output": tmp_path / "out",
        "reports": tmp_path / "reports.csv",
        "priors": "keep",
    }
    ingest(IngestSettings.model_validate(given | options))
    return [study.report.findings for study in Manifest.open(tmp_path / "out").studies()]


@pytest.mark.parametrize("header", ["StudyInstanceUID", "study_instance_uid", "Study Instance UID", "STUDY_UID"])
def test_the_uid_of_the_study_is_its_id(tmp_path: Path, studies: dict[str, str], header: str) -> None:
    lines = [f"{uid};Größe normal {accession}." for accession, uid in studies.items()]
    texts = read(tmp_path, "\n".join([f"{header};Findings", *lines]), "latin-1")
    assert sorted(texts) == [f"Größe normal {accession}." for accession in studies]


@pytest.mark.parametrize("key", [None, "in.key"])
def test_an_accession_number_leads_to_the_study(tmp_path: Path, studies: dict[str, str], key: str | None) -> None:
    if key:
        (tmp_path / key).write_bytes(os.urandom(32))
    lines = [f"{accession}\tHeart normal {accession}." for accession in studies]
    options = {"pseudonymize": tmp_path / key} if key else {}
    texts = read(tmp_path, "\n".join(["Accession Number\tFindings", *lines]), "utf-16", **options)
    assert sorted(texts) == [f"Heart normal {accession}." for accession in studies]


def test_columns_of_other_names(tmp_path: Path, studies: dict[str, str]) -> None:
    # The column that is named counts, also if another has the usual name.
    lines = [f"{accession};row {n};Lungen frei.;falsch" for n, accession in enumerate(studies)]
    table = "\n".join(["Auftragsnummer;study_id;Befund;findings", *lines])
    texts = read(tmp_path, table, columns={"study_id": "Auftragsnummer", "findings": "BEFUND"})
    assert texts == ["Lungen frei."] * 3


NAMES = {"study_id": "Nr", "findings": "Befund", "impression": "Beurteilung", "report": "Volltext"}
OPTIONS = {"study_id": "--id-column", "findings": "--findings-column", "impression": "--impression-column"} | {
    "report": "--report-column"
}


def table_of(path: Path, kind: str, lines: list[list[str]]) -> Path:
    """Write a table: a CSV file, given as its encoding and delimiter, or a workbook."""
    if kind == "workbook":
        return workbook(path.with_suffix(".xlsx"), {"Legende": "<sheetData/>", "Befunde": rows(["Export"], *lines)})
    encoding, delimiter = kind.split(" ")
    path.write_bytes("\n".join(map(delimiter.join, lines)).encode(encoding))
    return path


@pytest.mark.parametrize(
    ("kind", "named", "said"),
    [
        ("utf-8 ,", [], "CSV, utf-8, commas; 3 rows"),
        ("latin-1 ;", [], "CSV, windows-1252, semicolons; 3 rows"),
        ("utf-16 \t", [], "CSV, utf-16, tabs; 3 rows"),
        ("workbook", [], "workbook, sheet Befunde (2 of 2), header in row 2; 3 rows"),
        ("utf-8 ,", ["study_id"], "CSV, utf-8, commas; 3 rows; study_id from column 'Nr'"),
        (
            "latin-1 ;",
            ["study_id", "findings", "impression"],
            (
                "CSV, windows-1252, semicolons; 3 rows; study_id from column 'Nr', findings from 'Befund', "
                "impression from 'Beurteilung'"
            ),
        ),
        (
            "workbook",
            ["study_id", "report"],
            (
                "workbook, sheet Befunde (2 of 2), header in row 2; 3 rows; study_id from column 'Nr', "
                "report from 'Volltext'"
            ),
        ),
    ],
)
def test_what_was_taken_is_said_once(
    tmp_path: Path, studies: dict[str, str], caplog: pytest.LogCaptureFixture, kind: str, named: list[str], said: str
) -> None:
    """One line for each table, whether its columns have other names or not, and none of its cells in it."""
    texts = {"findings": "Größe normal.", "impression": "Unauffällig.", "report": "FINDINGS: Größe normal."}
    used = ["study_id", *(name for name in texts if name in named or (name == "findings" and "report" not in named))]
    lines = [[NAMES[name] if name in named else name for name in used]]
    lines += [[uid, *(texts[name] for name in used[1:])] for uid in studies.values()]
    table = table_of(tmp_path / "reports.csv", kind, lines)
    command = ["ingest", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "o"), "--reports", str(table), "--no-track"]
    options = [text for name in named for text in (OPTIONS[name], NAMES[name].upper())]
    result = CliRunner().invoke(cli.app, [*command, "--priors", "keep", *options])
    assert result.exit_code == 0, result.output
    assert [line for line in caplog.messages if table.name in line] == [f"{table.name}: {said}"]
    reports = [study.report for study in Manifest.open(tmp_path / "o").studies()]
    assert {report.findings for report in reports} == {"Größe normal."}
    assert {report.impression for report in reports} == {"Unauffällig." if "impression" in used else ""}


@pytest.mark.parametrize("header", ["StudyInstanceUID", "Accession Number"])
def test_a_column_that_was_recognised_is_said(
    tmp_path: Path, studies: dict[str, str], caplog: pytest.LogCaptureFixture, header: str
) -> None:
    caplog.set_level("INFO", "cxrreport")
    ids = studies if header.startswith("Acc") else studies.values()
    read(tmp_path, "\n".join([f"{header},Findings", *(f"{one},Clear." for one in ids)]))
    lines = [line for line in caplog.messages if "reports.csv" in line]
    assert lines == [f"reports.csv: CSV, utf-8, commas; 3 rows; study_id from column '{header}'"]


def test_a_table_of_images_takes_other_names_too(
    tmp_path: Path, studies: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "cxrreport")
    lines = [f"{n},s{n},p{n},Clear {n}." for n in range(3)]
    texts = read(
        tmp_path, "\n".join(["image,Nr,patient_id,Befund", *lines]), columns={"study_id": "Nr", "findings": "Befund"}
    )
    assert sorted(texts) == ["Clear 0.", "Clear 1.", "Clear 2."]
    said = "reports.csv: CSV, utf-8, commas; 3 rows; study_id from column 'Nr', findings from 'Befund'"
    assert [line for line in caplog.messages if "reports.csv" in line] == [said]


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (["9001", "9002", "9003"], "numbers, for example accession numbers"),
        (["KH-1", "KH-2", "KH-3"], "letters with numbers"),
        (["1.2.3", "1.2.4", "1.2.5"], "its ids look like UIDs"),
        (["Müller", "Maier", "1"], "other texts"),
    ],
)
def test_unmatched_ids_are_described(tmp_path: Path, studies: dict[str, str], ids: list[str], kind: str) -> None:
    table = "\n".join(["study_id,findings", *(f"{one},Clear." for one in ids)])
    with pytest.raises(InputError, match=f"0 of 3 reports .*{kind}.* like UIDs; .*--id-column"):
        read(tmp_path, table)


def test_a_missing_column_is_named(tmp_path: Path, studies: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"reports\.csv: no column befund; found findings, study_id"):
        read(tmp_path, "study_id,findings\n1,Clear.", columns={"report": "Befund"})


def test_a_duplicate_row(tmp_path: Path, studies: dict[str, str]) -> None:
    one, *others = studies.values()
    rows = [f"{one},Clear.", f"{one},Clear.", *(f"{other},Clear." for other in others)]
    assert len(read(tmp_path, "\n".join(["study_id,findings", *rows]))) == 3
    with pytest.raises(InputError, match="twice with different rows"):
        read(tmp_path, "\n".join(["study_id,findings", *rows, f"{one},Effusion."]), output=tmp_path / "o")


def test_a_row_of_jsonl_may_lack_a_column_of_another_name(tmp_path: Path, studies: dict[str, str]) -> None:
    table = tmp_path / "reports.jsonl"
    rows = [{"study_id": uid} | ({"Befund": "Clear."} if n else {}) for n, uid in enumerate(studies.values())]
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    given = {"input": tmp_path / "in", "output": tmp_path / "out", "reports": table, "columns": {"findings": "befund"}}
    summary = ingest(IngestSettings.model_validate(given))
    assert summary.kept == 2 and sum(summary.left_out.values()) == 1


def test_a_table_without_a_column_of_reports_says_which_option_names_it(
    tmp_path: Path, studies: dict[str, str]
) -> None:
    rows = "".join(f"{uid};Dr. Müller;Keine Stauung.\n" for uid in studies.values())
    with pytest.raises(InputError, match=r"--report-column.*befundtext"):
        read(tmp_path, f"StudyInstanceUID;Arzt;Befundtext\n{rows}", "latin-1")
    with pytest.raises(InputError, match=r"--id-column \(columns: arzt, befundtext, nummer"):
        read(tmp_path, f"Nummer;Arzt;Befundtext\n{rows}", "latin-1")


def test_a_workbook_of_a_reporting_system(tmp_path: Path, make_dataset: Make, write_dataset: Make) -> None:
    """German headers below a title, numbers as accession numbers, a second sheet; through the options."""
    for number in range(3):
        ids = {"AccessionNumber": f"0010{number}", "StudyInstanceUID": generate_uid(), "SOPInstanceUID": generate_uid()}
        write_dataset(tmp_path / "in" / f"{number}", make_dataset(PatientID=f"p{number}", **ids))  # type: ignore[arg-type]
    lines = [
        [f'<c r="A{n + 4}" s="2"><v>{100 + n}</v></c>', "Lungen frei._x000D_\nHerz normal.", "Unauffällig."]
        for n in range(3)
    ]
    befunde = rows(["Befundexport"], [], ["Auftragsnummer", "Befund", "Beurteilung"], *lines)
    styles = f'<styleSheet xmlns="{MAIN}">{STYLES}</styleSheet>'.replace("00000000", "00000")
    sheets = {"Befunde": befunde, "Legende": rows(["Kürzel", "Bedeutung"])}
    table = workbook(tmp_path / "Befunde.xlsx", sheets, parts={"xl/styles.xml": styles})
    command = ["ingest", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "o"), "--reports", str(table), "--no-track"]
    names = ["--id-column", "auftragsnummer", "--findings-column", "befund", "--impression-column", "Beurteilung"]
    refused = CliRunner().invoke(cli.app, [*command, *names])
    assert refused.exit_code == 2 and "2 sheets have data (Befunde, Legende)" in " ".join(refused.output.split())
    result = CliRunner().invoke(cli.app, [*command, *names, "--priors", "keep", "--sheet", "befunde"])
    assert result.exit_code == 0, result.output
    reports = [study.report for study in Manifest.open(tmp_path / "o").studies()]
    assert [(report.findings, report.impression) for report in reports] == [
        ("Lungen frei. Herz normal.", "Unauffällig.")
    ] * 3


def test_a_workbook_among_the_images_says_how_it_is_named(tmp_path: Path, studies: dict[str, str]) -> None:
    workbook(tmp_path / "in" / "Befunde.xlsx", rows(["StudyInstanceUID", "Befund"]))
    ingest(IngestSettings(input=tmp_path / "in", output=tmp_path / "out", require_report=False))
    (row,) = pq.read_table(tmp_path / "out" / "ledger.parquet").to_pylist()
    assert row["reason"] == "not-dicom" and "workbook" in row["detail"]
