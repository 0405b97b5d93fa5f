"""The command line: help, options over YAML, one line for a mistake, exit codes, JSON."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

import cxrreport
from cxrreport import cli, runs
from cxrreport.errors import CxrReportError, InputError, OutputError, TrainingError
from cxrreport.settings import GenerateSettings, Settings, TrainSettings

COMMANDS_OF = get_command(cli.app).commands  # type: ignore[attr-defined]
COMMANDS = sorted(COMMANDS_OF)
PIPELINE = ("ingest", "train", "generate", "evaluate", "review")


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner(env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"})


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Settings]:
    """Replaces the commands with functions that record their settings."""
    seen: dict[str, Settings] = {}

    def command(name: str) -> Any:
        def run(settings: Any, *, progress: runs.Progress) -> runs.Summary[None]:
            seen[name] = settings
            progress(1, 2, "studies")
            return runs.Summary(
                command=name,
                output=settings.output,
                seconds=1.5,
                run_id="ab" * 16,
                tracking_uri="sqlite:///x/mlflow.db",
                facts={
                    "kept": 1234,
                    "excluded": {"no-report": 2},
                    "radgraph_partial/model": {"value": 0.25, "low": 0.2, "high": 0.3},
                    "note": "[bold]kept as it is",
                },
                warnings=("only phantoms",),
                result=None,
            )

        return run

    for name in PIPELINE:
        monkeypatch.setattr(runs, name, command(name))
    return seen


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(*_args: Any, **_kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(runs, "ingest", run)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(runner: CliRunner, name: str) -> None:
    shown = runner.invoke(cli.app, [name, "--help"])
    assert shown.exit_code == 0
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", shown.output).split())
    assert re.search(rf"Examples?: cxrreport {name}\b", text)
    assert max(len(line) for line in shown.output.splitlines()) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_the_examples_exists(name: str) -> None:
    command = COMMANDS_OF[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    examples = re.findall(rf"`cxrreport {name}\b(.*?)`", command.help)
    assert examples
    given = {word for example in examples for word in example.split() if word.startswith("-")}
    assert given <= known


def test_without_a_command_there_is_help(runner: CliRunner) -> None:
    shown = runner.invoke(cli.app, [])
    assert "Usage" in shown.output
    assert "not a medical" in shown.output


def test_generate_needs_no_configuration(runner: CliRunner, called: dict[str, Settings]) -> None:
    done = runner.invoke(cli.app, ["generate", "--input", "dicom", "--checkpoint", "tiny"])
    assert done.exit_code == 0, done.output
    settings = called["generate"]
    assert isinstance(settings, GenerateSettings)
    assert settings.input == Path("dicom")
    assert settings.output == Path("cxrreport-reports")
    assert settings.checkpoint is not None
    assert settings.checkpoint.name == "tiny"
    assert settings.split == "test"


def test_options_override_the_file_and_leave_the_rest(
    runner: CliRunner, called: dict[str, Settings], tmp_path: Path
) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("data: d\noutput: o\nepochs: 7\ncheckpoint: {name: a, precision: float32}\n", encoding="utf-8")
    done = runner.invoke(cli.app, ["train", str(path), "-c", "b", "--seed", "3", "--no-track"])
    assert done.exit_code == 0, done.output
    settings = called["train"]
    assert isinstance(settings, TrainSettings)
    assert (settings.checkpoint.name, settings.checkpoint.precision) == ("b", "float32")
    assert (settings.epochs, settings.seed, settings.tracking.enabled) == (7, 3, False)


def test_all_splits_can_be_asked_for(runner: CliRunner, called: dict[str, Settings], tmp_path: Path) -> None:
    path = tmp_path / "generate.yaml"
    path.write_text("input: d\noutput: o\nsplit: validate\n", encoding="utf-8")
    for given, expected in ((["--split", "all"], None), (["--split", "train"], "train"), ([], "validate")):
        runner.invoke(cli.app, ["generate", str(path), *given])
        assert called["generate"].split == expected  # type: ignore[attr-defined]


def test_baselines_are_pairs(runner: CliRunner, called: dict[str, Settings]) -> None:
    given = ["evaluate", "-p", "a", "-r", "b", "-o", "c", "--baseline", "blank=d", "--baseline", "bare=e=f"]
    assert runner.invoke(cli.app, given).exit_code == 0
    assert called["evaluate"].baselines == {"blank": Path("d"), "bare": Path("e=f")}  # type: ignore[attr-defined]
    assert called["evaluate"].generate_baselines == ()  # type: ignore[attr-defined]
    wrong = runner.invoke(cli.app, [*given, "--baseline", "shufled"])
    assert wrong.exit_code == 2
    for word in ("NAME=PATH", "most-frequent, shuffled, blank, no-adapter, nearest"):
        assert word in wrong.stderr


def test_baselines_by_name_only_and_metrics(runner: CliRunner, called: dict[str, Settings], tmp_path: Path) -> None:
    path = tmp_path / "evaluate.yaml"
    path.write_text("predictions: p\nreferences: r\noutput: o\nmost_frequent: false\n", encoding="utf-8")
    asked = ("shuffled", "no-adapter", "most-frequent", "mine=m")
    given = [word for name in asked for word in ("--baseline", name)]
    assert runner.invoke(cli.app, ["evaluate", str(path), *given, "--metric", "bleu"]).exit_code == 0
    found = called["evaluate"].model_dump()
    assert found["generate_baselines"] == ("shuffled", "no_adapter")
    assert (found["most_frequent"], found["baselines"], found["metrics"]) == (True, {"mine": Path("m")}, ("bleu",))
    assert runner.invoke(cli.app, ["generate", "-i", "d", "-o", "o", "--baseline", "no-adapter"]).exit_code == 0
    assert called["generate"].baseline == "no_adapter"  # type: ignore[attr-defined]
    twice = runner.invoke(cli.app, ["evaluate", str(path), "--baseline", "blank=m", "--baseline", "blank"])
    assert twice.exit_code == 2 and "blank is among the baselines too" in twice.stderr


def test_the_summary_is_a_table_of_at_most_80_columns(runner: CliRunner, called: dict[str, Settings]) -> None:
    done = runner.invoke(cli.app, ["ingest", "-i", "in", "-o", "/a" * 100])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert max(len(line) for line in lines) <= 80
    for text in ("kept", "1,234", "excluded: no-report", "0.250 (0.200 to 0.300)", "[bold]kept as it is", "ab" * 16):
        assert text in done.stdout
    assert "mlflow ui --backend-store-uri sqlite:///x/mlflow.db" in done.stdout
    assert "warning: only phantoms" in done.stderr


def test_standard_output_is_only_json(runner: CliRunner, called: dict[str, Settings]) -> None:
    done = runner.invoke(cli.app, ["ingest", "-i", "in", "-o", "out", "--json"])
    values = json.loads(done.stdout)
    assert values["kept"] == 1234
    assert values["radgraph_partial/model"]["low"] == 0.2
    assert values["warnings"] == ["only phantoms"]


def test_sync_reports_what_it_sent(runner: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert runner.invoke(cli.app, ["sync", str(tmp_path)]).stdout.strip() == "nothing to send"
    monkeypatch.setattr(runs, "sync", lambda folder, uri: 2)
    assert runner.invoke(cli.app, ["sync"]).stdout.strip() == "2 runs sent"
    assert json.loads(runner.invoke(cli.app, ["sync", "--json"]).stdout) == {"sent": 2}


def test_versions_can_be_read_by_a_program(runner: CliRunner) -> None:
    from cxrreport import __version__

    assert json.loads(runner.invoke(cli.app, ["version", "--json"]).stdout)["cxrreport"] == __version__
    assert f"cxrreport {__version__}" in runner.invoke(cli.app, ["version"]).stdout


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("in: no such folder; give another"), 2),
        (OutputError("out: in use; give [another] folder"), 2),
        (TrainingError("the loss is nan; take a lower rate"), 1),
    ],
)
def test_an_error_of_ours_is_one_line(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, error: CxrReportError, code: int
) -> None:
    fail_with(monkeypatch, error)
    done = runner.invoke(cli.app, ["ingest", "-i", "/in", "-o", "/out"])
    assert done.exit_code == code
    assert done.stderr.strip() == f"error: {error}"
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["ingest", "-o", "out"], "input"),
        (["ingest", "-i", "in", "-o", "out", "--resolution", "300"], "resolution"),
        (["ingest", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "-i", "in", "-o", "out"], "checkpoint"),
        (["demo", "--resolution", "448"], "resolution"),
    ],
)
def test_a_mistake_names_its_field(runner: CliRunner, given: list[str], named: str) -> None:
    done = runner.invoke(cli.app, given)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


CONFIGURED = [name for name, one in COMMANDS_OF.items() if any(each.name == "config" for each in one.params)]
MISTAKES = {
    "agreement": (["--verdicts", "nowhere", "--scores", "nowhere"], "nowhere"),
    "compare": (["nowhere", "nowhere"], "nowhere"),
    "demo": (["--resolution", "448"], "resolution"),
    "doctor": (["here", "there"], "there"),
    "reporting": (["nowhere"], "nowhere"),
    "feedback": (["--verdicts", "missing.csv", "--predictions", "missing"], "missing"),
    "evaluate": (["-p", "nowhere", "-r", "nowhere", "-o", "out"], "nowhere"),
    "export": (["-p", "nowhere", "-o", "out"], "nowhere"),
    "generate": (["-i", "nowhere", "-c", "nowhere/too", "-o", "out"], "nowhere"),
    "ingest": (["-i", "nowhere", "-o", "out"], "nowhere"),
    "listen": (["-o", "out", "--archive", "nowhere"], "AE_TITLE@HOST:PORT"),
    "merge": (["nowhere", "out"], "nowhere"),
    "plan": (["--gpu", "abacus"], "abacus"),
    "published": (["nowhere"], "nowhere"),
    "pull": (["--archive", "nowhere", "--patient", "1", "-o", "out"], "AE_TITLE@HOST:PORT"),
    "push": (["-d", "nowhere", "--archive", "http://127.0.0.1:1", "-o", "out"], "nowhere"),
    "register": (["-a", "nowhere"], "nowhere"),
    "review": (["-e", "nowhere", "-i", "nowhere", "-o", "out.html"], "nowhere"),
    "status": (["nowhere"], "nowhere"),
    "sync": (["--uri"], "--uri"),
    "train": (["-i", "nowhere", "-c", "tiny", "-o", "out"], "nowhere"),
    "version": (["all"], "all"),
    "weights": (["--weights", "there", "--list", "nothing"], "nothing"),
}


def assert_said_as_every_error(done: Result, *named: str) -> None:
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = [one for one in done.stderr.splitlines() if "error: " in one]
    assert line.startswith("error: ")
    for one in named:
        assert one in line


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_reports_errors_in_the_same_way(
    runner: CliRunner, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXRREPORT_WEIGHTS", "")
    given, named = MISTAKES[name]
    assert_said_as_every_error(runner.invoke(cli.app, [name, *given]), named)
    assert_said_as_every_error(
        runner.invoke(cli.app, [name, "--nothing-like-it"]), "--nothing-like-it", f"{name} --help"
    )


@pytest.mark.parametrize("name", CONFIGURED)
@pytest.mark.parametrize(
    ("text", "named"), [("inputt: x\n", "inputt"), ("- a\n", "mapping"), ("a: [\n", "YAML"), (None, "cannot read")]
)
def test_a_bad_configuration_is_named(
    runner: CliRunner, name: str, text: str | None, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert_said_as_every_error(runner.invoke(cli.app, [name, str(path)]), str(path), named)


def test_the_real_command_names_what_is_missing(runner: CliRunner, tmp_path: Path) -> None:
    given = ["ingest", "--input", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out"), "--no-track"]
    done = runner.invoke(cli.app, given)
    assert done.exit_code == 2
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_shows_its_traceback_but_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "from cxrreport import cli, runs\n"
        "def broken(settings, progress):\n"
        "    report = ' '.join(['Mrs', 'Example'])\n"
        "    raise RuntimeError('a bug')\n"
        "runs.ingest = broken\n"
        "cli.app(['ingest', '-i', 'in', '-o', 'out'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RuntimeError" in done.stderr
    assert "Mrs Example" not in done.stderr


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_tells_how_to_resume(sent: signal.Signals, tmp_path: Path) -> None:
    script = (
        "import time\n"
        "from cxrreport import cli, runs\n"
        "def slow(settings, progress):\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(60)\n"
        "runs.ingest = slow\n"
        "cli.app(['ingest', '-i', 'in', '-o', 'out'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with SIGINT ignored, and their children inherit it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.2)
        os.kill(process.pid, sent)
        assert process.wait(timeout=20) == 130
        assert process.stderr.read().strip().splitlines()[-1] == "interrupted; re-run the same command to resume"


def test_python_m_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cxrreport", "version", "--json"], capture_output=True, text=True, check=True
    )
    assert "torch" in json.loads(done.stdout)


def test_version(runner: CliRunner) -> None:
    assert runner.invoke(cli.app, ["--version"]).output == f"cxrreport {cxrreport.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_and_options_of_settings_have_panels(name: str) -> None:
    options = [one for one in COMMANDS_OF[name].params if one.opts[0].startswith("--") and not one.hidden]
    assert [one.name for one in options if not one.help] == []
    if any("--set" in one.opts for one in options):
        assert [one.name for one in options if not one.rich_help_panel and one.name != "help"] == []


SETTINGS_COMMANDS = [name for name in COMMANDS if any("--set" in one.opts for one in COMMANDS_OF[name].params)]


def test_commands_with_settings_take_any_field(runner: CliRunner, called: dict[str, Settings], tmp_path: Path) -> None:
    """Values are those of YAML, nested, in lists and null; the last word after the file and the options."""
    assert set(SETTINGS_COMMANDS) > set(PIPELINE)
    path = tmp_path / "train.yaml"
    path.write_text("data: d\noutput: o\nepochs: 7\ncheckpoint: {name: a}\n", encoding="utf-8")
    changes = ["checkpoint.precision=float32", "training.learning_rate=1e-3", "prompt.sections=[findings]", "lora=null"]
    given = [word for change in [*changes, "epochs=2", "seed=5"] for word in ("--set", change)]
    done = runner.invoke(cli.app, ["train", str(path), "--epochs", "3", *given])
    assert done.exit_code == 0, done.output
    settings = called["train"]
    assert isinstance(settings, TrainSettings)
    assert (settings.checkpoint.name, settings.checkpoint.precision) == ("a", "float32")
    assert (settings.learning_rate, settings.prompt.sections, settings.lora) == (1e-3, ("findings",), None)
    assert (settings.epochs, settings.seed) == (2, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epoch=2", "train.yaml: epoch: unknown field; did you mean epochs?"),
        ("checkpoint.precison=float32", "checkpoint.precison: unknown field; did you mean precision?"),
        ("epochs=many", "train.yaml: epochs: Input should be a valid number"),
        ("seed.x=1", "seed: Input should be a valid integer"),
        ("epochs", "--set epochs: write FIELD=VALUE"),
        ("epochs=[1", "--set epochs=[1: the value is not valid YAML"),
    ],
)
def test_set_values_are_checked_like_the_file(
    runner: CliRunner, called: dict[str, Settings], tmp_path: Path, change: str, message: str
) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("data: d\noutput: o\ncheckpoint: {name: a}\n", encoding="utf-8")
    done = runner.invoke(cli.app, ["train", str(path), "--set", change])
    assert done.exit_code == 2
    assert message in done.stderr
    assert "train" not in called
