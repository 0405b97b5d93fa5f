"""The command line: parse, call `runs`, print. The only place that prints.

The summary goes to standard output (a table, or JSON with `--json`), progress, warnings and errors to standard error.
Exit codes: 0 done, 1 the work failed, 2 something given cannot be used, 130 stopped.
"""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cxrreport import __version__, records, runs
from cxrreport.errors import CxrReportError, InferenceError, ScoreError, SettingsError, TrackingError, TrainingError
from cxrreport.settings import (
    DemoSettings,
    EvaluateSettings,
    GenerateSettings,
    IngestSettings,
    ReviewSettings,
    Settings,
    TrainSettings,
    build,
    merge,
)

WIDTH = 80
"""Widest line of a summary, so that it can be pasted anywhere."""
STOPPED = 130
_FAILED = (TrainingError, InferenceError, ScoreError, TrackingError)

app = typer.Typer(
    name="cxrreport",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # a traceback must not print reports or patient tags
    rich_markup_mode="markdown",
    help="Chest X-ray reports, from DICOM to RadGraph F1. For research; not a medical device.",
)

S = TypeVar("S", bound=Settings)


class Layout(StrEnum):
    """How studies are laid out on disk."""

    AUTO = "auto"
    MIMIC_CXR = "mimic-cxr"
    OPENI = "openi"
    FOLDER = "folder"
    TABLE = "table"


class SplitName(StrEnum):
    """Part of the data."""

    TRAIN = "train"
    VALIDATE = "validate"
    TEST = "test"
    ALL = "all"


class Control(StrEnum):
    """What stands in for the study's own image."""

    NONE = "none"
    SHUFFLED = "shuffled"
    BLANK = "blank"


class Section(StrEnum):
    """What is scored."""

    FINDINGS = "findings"
    IMPRESSION = "impression"
    BOTH = "findings+impression"


class Priors(StrEnum):
    """Reports from which mentions of earlier studies are removed."""

    TRAINING = "training"
    ALL = "all"
    KEEP = "keep"


Pseudonymize = Annotated[
    Path | None, typer.Option(metavar="KEYFILE", help="Keyed hashes for ids and names of files.", show_default="none")
]
AllowRemote = Annotated[
    bool | None,
    typer.Option("--allow-remote", help="Allow what sends reports to another machine.", show_default="refuse"),
]
Config = Annotated[Path | None, typer.Argument(metavar="YAML", help="Settings; the options below override it.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder for what is written.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]
Track = Annotated[bool | None, typer.Option("--track/--no-track", help="Log an MLflow run.", show_default="track")]
CheckpointOption = Annotated[
    str | None,
    typer.Option("--checkpoint", "-c", metavar="NAME|DIR", help="Base model: a name of the table, a hub id, a folder."),
]


@app.command()
def ingest(
    config: Config = None,
    source: Annotated[
        Path | None, typer.Option("--input", "-i", metavar="DIR", help="Folder that holds the studies.")
    ] = None,
    output: Output = None,
    layout: Annotated[Layout | None, typer.Option(help="Layout of the studies.", show_default="auto")] = None,
    reports: Annotated[Path | None, typer.Option(metavar="FILE", help="Table of reports (CSV or Parquet).")] = None,
    resolution: Annotated[int | None, typer.Option(help="224, 448 or 896.", show_default="224")] = None,
    require_report: Annotated[
        bool | None,
        typer.Option("--require-report/--no-require-report", help="Leave out studies without.", show_default="require"),
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="Of several windows, the index or the explanation.", show_default="0")
    ] = None,
    covariates: Annotated[
        bool | None,
        typer.Option("--covariates/--no-covariates", help="Add sex, age band, AP/PA, maker.", show_default="no"),
    ] = None,
    priors: Annotated[
        Priors | None, typer.Option(help="Where mentions of earlier studies are removed.", show_default="training")
    ] = None,
    pseudonymize: Pseudonymize = None,
    allow_remote: AllowRemote = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes.", show_default="1")] = None,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="Only the I-th of N parts.")] = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """DICOM and reports to a manifest and model-ready images.

    Example: `cxrreport ingest --input mimic-cxr --output data --workers 8`
    """
    with _guarded():
        settings = _settings(
            IngestSettings,
            config,
            input=source,
            output=output,
            layout=layout,
            reports=reports,
            resolution=resolution,
            require_report=require_report,
            window=int(window) if window and window.isdigit() else window,
            covariates=covariates,
            priors=priors,
            pseudonymize=pseudonymize,
            allow_remote=allow_remote,
            workers=workers,
            shard=shard,
            tracking={"enabled": track},
        )
        with _bar() as progress:
            summary = runs.ingest(settings, progress=progress)
        _print(summary, as_json)


@app.command()
def train(
    config: Config = None,
    data: Annotated[Path | None, typer.Option("--input", "-i", metavar="DIR", help="Output folder of ingest.")] = None,
    output: Output = None,
    checkpoint: CheckpointOption = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data.", show_default="3")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps; overrides --epochs.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate.", show_default="1e-4")] = None,
    seed: Annotated[int | None, typer.Option(min=0, show_default="0")] = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Fine-tune with LoRA on the training split; give the same command again to go on after a stop.

    Example: `cxrreport train configs/train-mimic-cxr.yaml --output adapter`
    """
    with _guarded():
        settings = _settings(
            TrainSettings,
            config,
            data=data,
            output=output,
            checkpoint={"name": checkpoint},
            epochs=epochs,
            max_steps=max_steps,
            learning_rate=learning_rate,
            seed=seed,
            tracking={"enabled": track},
        )
        with _bar() as progress:
            summary = runs.train(settings, progress=progress)
        _print(summary, as_json)


@app.command()
def generate(
    config: Config = None,
    source: Annotated[
        Path | None,
        typer.Option("--input", "-i", metavar="PATH", help="Output folder of ingest, a folder of DICOM, or one file."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder.", show_default="cxrreport-reports"),
    ] = None,
    checkpoint: CheckpointOption = None,
    adapter: Annotated[
        Path | None, typer.Option("--adapter", "-a", metavar="DIR", help="Adapter folder of train.")
    ] = None,
    split: Annotated[SplitName | None, typer.Option(help="Part of the ingest folder.", show_default="test")] = None,
    control: Annotated[Control | None, typer.Option(help="Other images.", show_default="none")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first studies.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Studies at a time.", show_default="8")] = None,
    pseudonymize: Pseudonymize = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Write a report for every study of an ingest folder, or for a folder of DICOM as it comes.

    Example: `cxrreport generate --input dicom --checkpoint tiny --output reports`
    """
    with _guarded():
        if output is None and config is None:
            output = Path("cxrreport-reports")
        settings = _settings(
            GenerateSettings,
            config,
            input=source,
            output=output,
            checkpoint={"name": checkpoint},
            adapter=adapter,
            split=None if split is SplitName.ALL else split,
            control=control,
            limit=limit,
            batch_size=batch_size,
            pseudonymize=pseudonymize,
            tracking={"enabled": track},
        )
        if split is SplitName.ALL:
            settings = settings.model_copy(update={"split": None})
        with _bar() as progress:
            summary = runs.generate(settings, progress=progress)
        _print(summary, as_json)


@app.command()
def evaluate(
    config: Config = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", "-p", metavar="PATH", help="Output folder of generate, or a table.")
    ] = None,
    references: Annotated[
        Path | None, typer.Option("--references", "-r", metavar="PATH", help="Output folder of ingest, or a table.")
    ] = None,
    output: Output = None,
    controls: Annotated[
        list[str] | None, typer.Option("--control", metavar="NAME=PATH", help="Predictions of a control; repeatable.")
    ] = None,
    radgraph: Annotated[str | None, typer.Option(help="RadGraph model or folder.", show_default="radgraph-xl")] = None,
    section: Annotated[Section | None, typer.Option(help="Scored part.", show_default="findings+impression")] = None,
    allow_remote: AllowRemote = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Score reports: RadGraph F1, BLEU, ROUGE-L, with intervals by patient, beside controls.

    Example: `cxrreport evaluate -p reports -r data --radgraph radgraph-xl --output scores`
    """
    with _guarded():
        settings = _settings(
            EvaluateSettings,
            config,
            predictions=predictions,
            references=references,
            output=output,
            controls=_pairs(controls) if controls else None,
            radgraph=radgraph,
            section=section,
            allow_remote=allow_remote,
            tracking={"enabled": track},
        )
        with _bar() as progress:
            summary = runs.evaluate(settings, progress=progress)
        _print(summary, as_json)


@app.command()
def review(
    config: Config = None,
    evaluation: Annotated[
        Path | None, typer.Option("--evaluation", "-e", metavar="DIR", help="Output folder of evaluate.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--input", "-i", metavar="DIR", help="Output folder of ingest.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="The HTML file.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the worst studies.")] = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page with images, generated and reference reports and their entities, worst first.

    Example: `cxrreport review -e scores --input data --output review.html`
    """
    with _guarded():
        settings = _settings(
            ReviewSettings,
            config,
            evaluation=evaluation,
            data=data,
            output=output,
            limit=limit,
            tracking={"enabled": track},
        )
        with _bar() as progress:
            summary = runs.review(settings, progress=progress)
        _print(summary, as_json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for everything.")] = Path("demo-out"),
    resolution: Annotated[int, typer.Option(help="224 or 896.")] = 224,
    patients: Annotated[
        int | None, typer.Option(min=20, help="Phantom patients.", show_default="900; at 896 pixels 120")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of phantoms, training and intervals.")] = 0,
    as_json: Json = False,
) -> None:
    """Walk the whole road on phantoms: DICOM, fine-tuning, reports, scores, every step an MLflow run.

    Example: `cxrreport demo --out demo-out`
    """
    with _guarded():
        settings = _settings(DemoSettings, None, output=out, resolution=resolution, patients=patients, seed=seed)
        from cxrreport.demo.walk import walk

        with _bar() as progress:
            summary = walk(settings, progress)
        if as_json:
            _print_json(summary)
        else:
            _print_demo(summary, settings)


@app.command()
def sync(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that holds the outputs.")] = Path(),
    uri: Annotated[str | None, typer.Option(metavar="URI", help="Tracking URI.", show_default="as the runs'")] = None,
) -> None:
    """Send what MLflow did not take while runs were at work: its server was away, or the run was killed.

    Example: `cxrreport sync --uri http://127.0.0.1:5000 results`
    """
    with _guarded():
        sent = runs.sync(folder, uri)
        _out().print(f"{sent} {'run' if sent == 1 else 'runs'} sent" if sent else "nothing to send", highlight=False)


@app.command()
def version(as_json: Json = False) -> None:
    """Print the versions of this package and of those that its results depend on.

    Example: `cxrreport version --json`
    """
    versions = {"cxrreport": __version__}
    for package in ("torch", "transformers", "peft", "radgraph", "pydicom", "monai", "mlflow"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    if as_json:
        _print_json(versions)
    else:
        _out().print("\n".join(f"{package} {number}" for package, number in versions.items()), highlight=False)


def _settings(model: type[S], config: Path | None, **overrides: Any) -> S:
    if config is not None:
        return model.from_yaml(config, **overrides)
    return build(model, merge({}, overrides), where="command line")


def _pairs(given: list[str]) -> dict[str, Path]:
    pairs = {}
    for text in given:
        name, sign, path = text.partition("=")
        if not (name and sign and path):
            raise SettingsError(f"--control {text}: write NAME=PATH, e.g. --control blank=reports-blank")
        pairs[name] = Path(path)
    return pairs


@contextmanager
def _guarded() -> Iterator[None]:
    """Turn what a user can cause into one line and an exit code; bugs keep their traceback."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=_err(), show_time=False, show_path=False)],
    )

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt  # a scheduler's SIGTERM ends a run as Ctrl-C does

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        _err().print("stopped; the same command goes on", highlight=False)
        raise typer.Exit(STOPPED) from None
    except CxrReportError as error:
        _err().print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1 if isinstance(error, _FAILED) else 2) from None
    finally:
        signal.signal(signal.SIGTERM, before)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")


@contextmanager
def _bar() -> Iterator[records.Progress]:
    """A progress bar per label on standard error, with rate and time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), _Rate())
    with Progress(*columns, TimeRemainingColumn(elapsed_when_finished=True), console=_err()) as bar:
        tasks: dict[str, TaskID] = {}

        def report(done: int, total: int, label: str) -> None:
            if not total:
                return  # nothing of this kind to do
            if label not in tasks:
                tasks[label] = bar.add_task(label, total=total)
            bar.update(tasks[label], completed=done, total=total)

        yield report


def _out() -> Console:
    console = Console()
    return Console(width=min(WIDTH, console.width))


def _err() -> Console:
    return Console(stderr=True)


def _print_json(value: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def _print(summary: runs.Summary[Any], as_json: bool) -> None:
    for warning in summary.warnings:
        _err().print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        _print_json(summary.as_dict())
        return
    table = _table(f"cxrreport {summary.verb}", "", "")
    for name, value in _rows(summary.facts):
        table.add_row(escape(name), escape(value))
    table.add_row("seconds", _shown(summary.seconds))
    table.add_row("output", escape(str(summary.output)))
    out = _out()
    out.print(table)
    if summary.run_id:
        out.print(f"MLflow run {summary.run_id}; to see it:", highlight=False)
        typer.echo(f"  {mlflow_command(summary.tracking_uri)}")


def _print_demo(summary: Mapping[str, Any], settings: DemoSettings) -> None:
    out = _out()
    table = _table("synthetic: phantoms and tiny models", "system", "RadGraph F1 (partial)", "finding F1")
    for system, score in summary["radgraph_f1"].items():
        table.add_row(system.replace("_", " "), _interval(score), _interval(summary["finding_f1"].get(system)))
    table.add_row("base, own style", "", _interval(summary["finding_f1"]["base_terse"]))
    out.print(table)
    found = _table("findings of the tuned model", "finding", "F1")
    for finding, score in summary["finding_f1_by_finding"].items():
        found.add_row(finding, f"{score:.3f}")
    found.add_row("reports that contradict themselves", f"{100 * summary['contradictions']:.1f}%")
    out.print(found)
    steps = _table("", "step", "seconds")
    for step, seconds in summary["seconds"].items():
        steps.add_row(step, _shown(seconds))
    steps.add_row("peak memory", f"{summary['peak_memory_mb']:,.0f} MB")
    out.print(steps)
    typer.echo(f"Everything lies in {settings.output}:")
    typer.echo("  summary.json              these numbers")
    typer.echo("  review.html               reports beside their images, worst first")
    typer.echo("  ingest/contact_sheet.png  what the model sees")
    typer.echo("  train/loss.png            how it learned")
    typer.echo("The runs in MLflow:")
    uri = f"sqlite:///{settings.output / 'mlflow.db'}"
    typer.echo(f"  {mlflow_command(uri)}")


def mlflow_command(uri: str) -> str:
    """The command that opens the runs in a browser."""
    return f"mlflow ui --backend-store-uri {uri}" if not uri.startswith("http") else f"open {uri}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title or None, title_justify="left", show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _interval(score: Mapping[str, float] | None) -> str:
    if score is None:
        return ""
    return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


def _rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in facts.items():
        name = key.replace("_", " ")
        if not isinstance(value, Mapping):
            yield name, _shown(value)
        elif {"value", "low", "high"} <= value.keys():
            yield name, _interval(value)
        else:
            yield from ((f"{name}: {below}", text) for below, text in _rows(value))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
