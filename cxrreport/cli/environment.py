"""The commands about this machine and what runs on it: doctor, weights, sync, status, version."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cxrreport import __version__, runs
from cxrreport.cli.app import WeightsFolder, app
from cxrreport.cli.options import Json, expanded
from cxrreport.cli.output import (
    duration,
    echo,
    guarded,
    per_second,
    print_json,
    progress_bar,
    stdout,
    table_of,
)
from cxrreport.errors import SettingsError
from cxrreport.runs.status import Stage
from cxrreport.settings import WEIGHTS, weights_folder
from cxrreport.versions import installed


@app.command()
@guarded()
def doctor(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder for outputs.", show_default="current folder", callback=expanded),
    ] = Path(),
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Compute metrics of public pairs whose values are published.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check this machine and show how to fix each problem. Exit code 1 if a problem prevents the work.

    Example: `cxrreport doctor --json results`
    """
    from cxrreport.doctor import State, examine, examine_metrics

    checks = [*examine(folder), *(examine_metrics() if metrics else ())]
    if as_json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        table = table_of("", "", "", "result and remedy")
        for check in checks:
            colour = {State.OK: "green", State.NOTE: "yellow", State.FAIL: "red"}[check.state]
            text = escape(check.detail) + (f"\n[bold]-> {escape(check.remedy)}[/]" if check.remedy else "")
            table.add_row(f"[{colour}]{check.state.value}[/]", check.name, text)
        stdout().print(table)
    if any(check.state is State.FAIL for check in checks):
        raise typer.Exit(1)


@app.command()
@guarded()
def weights(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Weights to download.")] = None,
    folder: WeightsFolder = None,
    listing: Annotated[bool, typer.Option("--list", help="Print files and download commands only.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Verify the hashes only.")] = False,
    as_json: Json = False,
) -> None:
    """Download published weights once and hash them; `cxrreport --weights DIR` then uses them offline.

    Default: the 3B at 896 pixels, RadGraph-XL and CheXbert. Gated weights require an accepted licence and
    `hf auth login` or HF_TOKEN. For a machine without a network, `--list` prints the commands that download the files
    elsewhere; run this command again on the copied folder to hash it.

    Example: `cxrreport weights --weights /data/weights paligemma2-3b-pt-896 radgraph-xl`
    """
    from cxrreport import weights as published

    root = folder or weights_folder()
    if root is None and listing:
        root = Path("weights")
    if root is None:
        raise SettingsError(f"weights: give --weights DIR or set {WEIGHTS} to name the folder")
    names = names or list(published.DEFAULTS.values())
    if listing:
        _list(names, root, as_json)
    elif check:
        wrong = published.find_changed_files(root)
        if as_json:
            print_json({"wrong": wrong})
        else:
            echo("\n".join(wrong) if wrong else "all files match their hashes")
        if wrong:
            raise typer.Exit(1)
    else:
        with progress_bar() as progress:
            fetched = published.fetch(names, root, progress=progress)
        if as_json:
            print_json(fetched)
            return
        table = table_of(str(root), "file", "SHA-256")
        for files in fetched.values():
            for file, digest in files.items():
                table.add_row(file, digest[:16])
        stdout().print(table)
        echo(f"All hashes: {root / published.INVENTORY}. To use them:")
        echo(f"  export {WEIGHTS}={shlex.quote(str(root.absolute()))}")


def _list(names: list[str], root: Path, as_json: bool) -> None:
    from cxrreport import weights as published

    chosen = published.select(names)
    if as_json:
        print_json({item.name: asdict(item) | {"present": published.is_complete(item.name, root)} for item in chosen})
        return
    for item in chosen:
        state = "present" if published.is_complete(item.name, root) else ""
        if item.gated and not state:
            state = "gated: accept its licence first"
        echo(f"# {item.name} ({item.purpose}){': ' if state else ''}{state}")
        echo("\n".join(published.download_commands(item, root)))


@app.command()
@guarded()
def reporting(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the outputs.", callback=expanded)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for both files.", show_default="DIR"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fill the checklists of TRIPOD-LLM, MI-CLEAR-LLM, CLAIM and REFINE from the records of your runs.

    Writes reporting.md and reporting.html: every item with its value and where it comes from, or "not known".

    Example: `cxrreport reporting results`
    """
    from cxrreport.reporting import answers, read_study, write_documents

    found = answers(read_study(folder))
    if as_json:
        print_json({"items": [asdict(one) for one in found]})
        return
    for path in write_documents(found, output or folder):
        echo(str(path))
    echo(f"{sum(bool(one.source) for one in found)} of {len(found)} items are filled; complete the others by hand.")


@app.command()
@guarded()
def sync(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the outputs.", callback=expanded)] = Path(),
    uri: Annotated[
        str | None, typer.Option(metavar="URI", help="Tracking URI.", show_default="that of the runs")
    ] = None,
    as_json: Json = False,
) -> None:
    """Send the events that MLflow did not receive because its server was unreachable or a run was killed.

    Example: `cxrreport sync --uri http://127.0.0.1:5000 results`
    """
    sent = runs.sync(folder, uri)
    if as_json:
        print_json({"sent": sent})
        return
    stdout().print(f"{sent} {'run' if sent == 1 else 'runs'} sent" if sent else "nothing to send", highlight=False)


@app.command()
@guarded()
def status(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Output folder, or a folder of them.", callback=expanded)
    ],
    as_json: Json = False,
) -> None:
    """Show state, rate and remaining time of a command from the files of its output folder.

    Example: `cxrreport status reports`
    """
    found = runs.status(folder)
    if as_json:
        print_json({"folders": [one.as_dict() for one in found]})
        return
    table = table_of("", "folder", "state", "progress")
    for one in found:
        lines = [
            f"{stage.label}: {stage.done:,} of {stage.total:,}" + _pace(stage, running=one.state == "running")
            for stage in one.stages
            if stage.done < stage.total or len(one.stages) == 1
        ]
        age = f", last progress {duration(one.seconds_ago)} ago" if one.seconds_ago is not None else ""
        text = "\n".join([*lines, *([one.note] if one.note else [])])
        table.add_row(escape(str(one.folder)), f"{one.command} {one.state}{age}", escape(text))
    stdout().print(table)


def _pace(stage: Stage, *, running: bool) -> str:
    if stage.rate is None or stage.seconds_left is None or not running:
        return ""
    return f", {per_second(stage.rate)}, about {duration(stage.seconds_left)} left"


@app.command()
def version(as_json: Json = False) -> None:
    """Print the versions of cxrreport and of the packages that its results depend on.

    Example: `cxrreport version --json`
    """
    packages = ("torch", "transformers", "peft", "radgraph", "pydicom", "monai", "mlflow")
    versions = {"cxrreport": __version__} | dict.fromkeys(packages, "not installed") | installed(packages)
    if as_json:
        print_json(versions)
    else:
        stdout().print("\n".join(f"{package} {number}" for package, number in versions.items()), highlight=False)
