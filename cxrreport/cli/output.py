"""Output of commands: summaries on standard output (a table or JSON); progress, warnings and errors on standard error.

Exit codes: 0 success, 1 the work failed, 2 an input cannot be used, 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from cxrreport import records, runs
from cxrreport.errors import CxrReportError, InferenceError, ScoreError, TrackingError, TrainingError
from cxrreport.settings import Settings
from cxrreport.storage.decoding import without_controls

R = TypeVar("R")
WIDTH = 80
"""Maximum width of a summary, in columns."""
STOPPED = 130
_SECONDS_BETWEEN_LINES = 30.0
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that reverse the order of what follows, or break lines."""
_FAILED = (TrainingError, InferenceError, ScoreError, TrackingError)


@contextmanager
def guarded() -> Iterator[None]:
    """Report errors of cxrreport and of the system as one line with an exit code, others with their traceback."""
    handler = RichHandler(console=stderr(), show_time=False, show_path=False)
    handler.setFormatter(_OneLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("cxrreport").setLevel(logging.INFO)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt  # SIGTERM from a scheduler ends a run like Ctrl-C

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt as stopped:
        say(f"{str(stopped) or 'interrupted'}; re-run the same command to resume")
        raise typer.Exit(STOPPED) from None
    except CxrReportError as error:
        say_error(" ".join([str(error), *getattr(error, "__notes__", ())]))
        raise typer.Exit(1 if isinstance(error, _FAILED) else 2) from None
    except OSError as error:
        name = "the system" if error.filename is None else os.fsdecode(error.filename)
        say_error(f"{name}: {error.strerror or error}; fix this and re-run the same command")
        raise typer.Exit(1) from None
    except Exception:
        stderr().print_exception(suppress=[typer])
        raise typer.Exit(1) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def say(message: str) -> None:
    """Print one line on standard error."""
    stderr().print(message, markup=False, highlight=False, soft_wrap=True)


def say_error(message: str) -> None:
    """Print an error as one line on standard error."""
    stderr().print(f"error: {_line(message)}", style="bold red", markup=False, highlight=False, soft_wrap=True)


def _line(text: str) -> str:
    return re.sub(r"[\r\n]+", " ", text)


class _OneLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name of the base class
        return _line(super().formatMessage(record))


class Terminal(Console):
    """A console on which no text of a file, for example an id, can move the cursor, change colours or be reversed."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """See `Console.render`; the codes of rich itself are controls or styles, not text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=harmless(segment.text))


def echo(line: str) -> None:
    """Print a line as it is on standard output, however wide the terminal is."""
    typer.echo(harmless(line))


def harmless(text: str) -> str:
    """A text with `?` for every character that a terminal would act on."""
    return _DIRECTIONS.sub("?", without_controls(text, "?"))


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(per_second(speed))


def per_second(speed: float) -> str:
    """A rate in words."""
    return f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def progress_bar() -> Iterator[records.Progress]:
    """A progress bar for each label on standard error, with rate and remaining time.

    Without a terminal, a line every 30 seconds instead. A label may come again, in a later step of the demo; its time
    then begins anew.
    """
    if not stderr().is_terminal:
        yield _progress_lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), _Rate())
    with Progress(*columns, TimeRemainingColumn(elapsed_when_finished=True), console=stderr()) as bar:
        tasks: dict[str, TaskID] = {}

        def report(done: int, total: int, label: str) -> None:
            if not total:
                return  # nothing of this kind to do
            if label not in tasks:
                tasks[label] = bar.add_task(label, total=total)
            elif done < bar.tasks[tasks[label]].completed:
                bar.reset(tasks[label])
            bar.update(tasks[label], completed=done, total=total)

        yield report


def _progress_lines() -> records.Progress:
    begun: dict[str, tuple[float, int]] = {}
    last: dict[str, int] = {}
    written = time.monotonic()

    def report(done: int, total: int, label: str) -> None:
        nonlocal written
        now = time.monotonic()
        if done < last.get(label, 0):
            del begun[label]
        last[label] = done
        start, at_start = begun.setdefault(label, (now, done))
        if not total or now - written < _SECONDS_BETWEEN_LINES:
            return
        written = now
        rate = (done - at_start) / (now - start) if now > start else 0.0
        left = f", about {duration((total - done) / rate)} left" if rate else ""
        say(f"{label}: {done} of {total}{left}")

    return report


@contextmanager
def with_working_folder(settings: Settings) -> Iterator[None]:
    """Add the working folder to errors that name a relative path of the settings."""
    try:
        yield
    except CxrReportError as error:
        names = "|".join(re.escape(str(path)) for path in settings.relative_paths())
        if names and re.search(rf"(?<![\w./~-])(?:{names})(?![\w-])", str(error)):
            error.add_note(f"(relative paths start at {Path.cwd()})")
        raise


def perform(command: Callable[..., runs.Summary[R]], settings: Settings) -> runs.Summary[R]:
    """Run a command with a progress bar."""
    with progress_bar() as progress, with_working_folder(settings):
        return command(settings, progress=progress)


def stdout() -> Terminal:
    """Standard output, at most 80 columns wide."""
    return Terminal(width=min(WIDTH, Console().width))


def stderr() -> Terminal:
    """Standard error, as wide as the terminal."""
    return Terminal(stderr=True)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object."""
    typer.echo(json.dumps(value, indent=2, default=str))


def print_summary(summary: runs.Summary[Any], as_json: bool) -> None:
    """Print warnings, facts, the output folder, and the command that opens the MLflow run."""
    for warning in summary.warnings:
        stderr().print(f"warning: {_line(warning)}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json(summary.as_dict())
        return
    table = table_of(f"cxrreport {summary.command}", "", "")
    for name, value in rows(summary.facts):
        table.add_row(escape(name), escape(value))
    table.add_row("seconds", shown(summary.seconds))
    table.add_row("output", escape(str(summary.output)))
    console = stdout()
    console.print(table)
    if summary.run_id:
        console.print(f"MLflow run {summary.run_id}; open it with:", highlight=False)
        echo(f"  {mlflow_command(summary.tracking_uri)}")


def mlflow_command(uri: str) -> str:
    """Shell command that opens the runs in a browser."""
    quoted = shlex.quote(uri)
    return f"open {quoted}" if uri.startswith("http") else f"mlflow ui --backend-store-uri {quoted}"


def table_of(title: str, *columns: str) -> Table:
    """An empty table that wraps long cells."""
    table = Table(title=title or None, title_justify="left", show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def interval(score: Mapping[str, float | None] | None) -> str:
    """A score with its interval, which is undefined for one patient; empty if the score is missing or undefined."""
    if score is None or score["value"] is None:  # not computed, or undefined on these studies
        return ""
    return f"{score['value']:.3f} {bounds(score['low'], score['high'])}"


def bounds(low: float | None, high: float | None, form: str = ".3f") -> str:
    """The bounds of an interval in brackets, each formatted with `form`."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return "(interval undefined)"
    return f"({low:{form}} to {high:{form}})"


def rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Nested facts as pairs of name and text."""
    for key, value in facts.items():
        name = key.replace("_", " ")
        if not isinstance(value, Mapping):
            yield name, shown(value)
        elif {"value", "low", "high"} <= value.keys():
            yield name, interval(value)
        else:
            yield from ((f"{name}: {below}", text) for below, text in rows(value))


def shown(value: Any) -> str:
    """A value rounded for display."""
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
