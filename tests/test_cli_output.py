"""What the command line prints beside summaries."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.progress import Progress
from typer.testing import CliRunner

from cxrreport import cli
from cxrreport.cli import output
from cxrreport.cli.output import Terminal


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that progress sees, in seconds."""
    now = [100.0]
    monkeypatch.setattr(output.time, "monotonic", lambda: now[0])
    return now


def test_progress_without_a_terminal_is_a_line_now_and_then(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with output.progress_bar() as progress:
        for done in range(61):
            clock[0] += 2
            progress(done, 100, "studies")
        progress(1, 0, "nothing")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "studies: 14 of 100, about 0:02:52 left",
        "studies: 29 of 100, about 0:02:22 left",
        "studies: 44 of 100, about 0:01:52 left",
        "studies: 59 of 100, about 0:01:22 left",
    ]


def test_the_time_of_a_label_that_comes_again_begins_anew(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps of the demo share labels; the remaining time of the second one counted from the start of the first."""
    with output.progress_bar() as progress:
        progress(0, 100, "studies")
        progress(100, 100, "studies")
        clock[0] += 1000
        for done in range(31):
            clock[0] += 2
            progress(done, 100, "studies")
    assert capsys.readouterr().err.splitlines() == [
        "studies: 0 of 100",
        "studies: 15 of 100, about 0:02:50 left",
        "studies: 30 of 100, about 0:02:20 left",
    ]


def test_a_bar_that_is_filled_again_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr(output, "stderr", lambda: terminal)
    bars: list[output.Progress] = []
    monkeypatch.setattr(
        output, "Progress", lambda *columns, **options: bars.append(Progress(*columns, **options)) or bars[0]
    )
    with output.progress_bar() as progress:
        progress(10, 10, "studies")
        first = bars[0].tasks[0].start_time
        assert bars[0].tasks[0].finished
        progress(1, 10, "studies")
    again = bars[0].tasks[0]
    assert (again.completed, again.finished) == (1, False) and again.start_time > first


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_a_short_form(flag: str) -> None:
    assert CliRunner().invoke(cli.app, ["ingest", flag]).exit_code == 0


def test_weights_are_listed_without_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXRREPORT_WEIGHTS", raising=False)
    listed = CliRunner().invoke(cli.app, ["weights", "--list", "radgraph-xl"])
    assert listed.exit_code == 0
    assert "hf download" in listed.stdout and "ENCODER" not in listed.stdout
    assert "repeat this command" in listed.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ingest", "--input", "nowhere", "-o", "out"], "input does not exist; give: Folder of studies"),
        (["evaluate", "-p", "nowhere", "-r", "nowhere", "-o", "out"], "predictions does not exist; give: "),
        (["review", "-e", "nowhere", "-i", "nowhere", "-o", "out.html"], "data does not exist; give: "),
    ],
)
def test_a_missing_input_is_reported_before_a_run_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2 and f"nowhere: {message}" in result.stderr
    assert list(tmp_path.iterdir()) == []
