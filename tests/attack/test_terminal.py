"""No text of a file controls the terminal, and documents are well-formed for all characters in ids and reports."""

from __future__ import annotations

import csv
import io
import logging
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import typer
from plain_studies import write_study
from pydantic import ValidationError
from typer.testing import CliRunner

from cxrreport import cli
from cxrreport.cli.output import Terminal, guarded, progress_bar, table_of
from cxrreport.errors import InputError
from cxrreport.settings import IngestSettings, ReviewSettings
from cxrreport.storage.atomic_files import PARTIAL, atomic_path, remove_partial

HOSTILE = "S\x1b[2J\x1b]0;title\x07\x9b31m\x08\r\u202eid\u2028\x00\x7f"
ACTS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202e\u2028]")
ANSI = re.compile(r"\r?\x1b\[[0-9;?]*[A-Za-z]")  # what rich itself writes on a terminal


def shown(make, **options) -> str:
    written = io.StringIO()
    make(Terminal(file=written, width=60, **options))
    return written.getvalue()


def table(console):
    made = table_of(HOSTILE, HOSTILE, "")
    made.add_row(HOSTILE, "x")
    console.print(made)


@pytest.mark.parametrize("options", [{}, {"force_terminal": True, "color_system": "truecolor"}])
@pytest.mark.parametrize(
    "make",
    [
        lambda console: console.print(HOSTILE, markup=False),
        lambda console: console.print(f"error: {HOSTILE}", style="bold red", markup=False, soft_wrap=True),
        table,
    ],
)
def test_texts_cannot_control_the_terminal(make, options):
    text = ANSI.sub("", shown(make, **options))
    assert "S?[2J" in text.replace("\n", "")
    assert not ACTS.search(text)


@pytest.mark.parametrize("terminal", [False, True])
def test_logs_errors_progress_and_tracebacks(terminal, capfd, monkeypatch):
    monkeypatch.setattr("cxrreport.cli.output._SECONDS_BETWEEN_LINES", 0)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(logging.root, "handlers", [])
    for error, code in (
        (InputError(f"{HOSTILE}\nforged"), 2),
        (OSError(5, "I/O", HOSTILE), 1),
        (ValueError(HOSTILE), 1),
    ):
        with pytest.raises(typer.Exit) as stopped, guarded():
            logging.getLogger("cxrreport.test").warning("study %s\nforged", HOSTILE)
            with progress_bar() as progress:
                progress(1, 2, f"studies {HOSTILE}")
            raise error
        assert stopped.value.exit_code == code
    out, err = capfd.readouterr()
    err = ANSI.sub("", err)
    assert "study S" in err and "error: S" in err and "ValueError" in err and "studies S" in err
    assert not ACTS.search(out + err)
    assert not re.search("^forged", err, re.M)


def test_a_nonzero_exit_code_is_not_a_traceback(capfd):
    with pytest.raises(typer.Exit) as stopped, guarded():
        raise typer.Exit(7)
    assert stopped.value.exit_code == 7 and capfd.readouterr() == ("", "")


def test_ids_of_files_and_tables_on_the_command_line(tmp_path):
    write_study(tmp_path / "in" / "a.dcm", 1)
    table = tmp_path / "reports.csv"
    with table.open("w", newline="") as file:
        rows = [
            ["study_id", "findings"],
            [HOSTILE.replace("\0", ""), "Clear."],
            [HOSTILE.replace("\0", ""), "Opacity."],
        ]
        csv.writer(file).writerows(rows)
    words = ["ingest", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--reports", str(table), "--no-track"]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 2 and "is there twice" in done.stderr
    assert not ACTS.search(done.stdout + done.stderr)


def test_documents_are_well_formed():
    from cxrreport.storage.decoding import without_controls

    every = "".join(map(chr, [*range(0x300), *range(0xD7F0, 0xE010), *range(0xFFF0, 0x10010)]))
    from html import escape

    ElementTree.fromstring(f"<div>{escape(without_controls(every))}</div>")
    assert without_controls("Größe 1\t\n2 — 肺\u200f") == "Größe 1\t\n2 — 肺\u200f"


@pytest.mark.parametrize("letter", ["a", "é", "肺"])
@pytest.mark.parametrize("size", [240, 241, 255, 256, 300, 5000])
def test_long_names_of_outputs(letter, size, tmp_path):
    name = letter * (size // len(letter.encode()))
    name += "x" * (size - len(name.encode()))
    write_study(tmp_path / "in" / "a.dcm", 1)
    words = ["ingest", "-i", str(tmp_path / "in"), "-o", str(tmp_path / name), "--no-require-report", "--no-track"]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == (0 if size <= 240 else 2), done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr) < 800
    if size > 240:
        assert "bytes" in done.stderr and "output" in done.stderr


def test_long_names_of_other_paths_and_long_paths(tmp_path):
    with pytest.raises(ValidationError, match="256 bytes"):
        IngestSettings(input=tmp_path / ("a" * 256), output=tmp_path / "out")
    with pytest.raises(ValidationError, match="zero byte"):
        ReviewSettings(evaluation=tmp_path, data=tmp_path, output=Path("a\0b"))
    deep = tmp_path.joinpath(*["d" * 200] * 30)
    done = CliRunner().invoke(cli.app, ["ingest", "-i", str(tmp_path), "-o", str(deep), "--no-track"])
    assert done.exit_code in (1, 2) and done.stderr.strip().startswith("error: ") and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["a" * 255, "肺" * 85, "a" * 200 + "." + "b" * 54, "x.parquet"], ids=len)
def test_the_longest_names_can_be_written_atomically(name, tmp_path):
    class Killed(BaseException):
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # a kill leaves the incomplete file
        with pytest.raises(Killed), atomic_path(tmp_path / name) as temporary:
            temporary.write_text("half")
            raise Killed
    assert [path.name[: len(PARTIAL)] for path in tmp_path.iterdir()] == [PARTIAL]
    (tmp_path / f"{PARTIAL}12345678-other.html").write_text("of another file")
    remove_partial(tmp_path / name)
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{PARTIAL}12345678-other.html"}
