"""The machine: what it has for the work, and the weights that it needs."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cxrreport.cli.app import app
from cxrreport.cli.options import Json
from cxrreport.cli.output import guarded, print_json, progress_bar, stdout, table_of
from cxrreport.errors import SettingsError
from cxrreport.settings import WEIGHTS, weights_folder

_Folder = Annotated[Path | None, typer.Option("--weights", metavar="DIR", help=f"Folder of weights, or {WEIGHTS}.")]


@app.callback(invoke_without_command=True)
def everywhere(context: typer.Context, weights: _Folder = None) -> None:
    """Options of all commands."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    if weights is not None:
        os.environ[WEIGHTS] = str(weights.absolute())  # worker processes inherit it


@app.command()
def doctor(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for outputs.", show_default="here")] = Path(),
    as_json: Json = False,
) -> None:
    """Say what this machine has and lacks for the work; exit code 1 where something must be mended first.

    Example: `cxrreport doctor --json results`
    """
    with guarded():
        from cxrreport.doctor import State, examine

        checks = list(examine(folder))
        if as_json:
            print_json({"checks": [asdict(check) for check in checks]})
        else:
            table = table_of("", "", "", "found, and what to do")
            for check in checks:
                colour = {State.OK: "green", State.NOTE: "yellow", State.FAIL: "red"}[check.state]
                said = escape(check.detail) + (f"\n[bold]-> {escape(check.remedy)}[/]" if check.remedy else "")
                table.add_row(f"[{colour}]{check.state.value}[/]", check.name, said)
            stdout().print(table)
        if any(check.state is State.FAIL for check in checks):
            raise typer.Exit(1)


@app.command()
def weights(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="What to fetch.")] = None,
    folder: _Folder = None,
    listing: Annotated[bool, typer.Option("--list", help="Print files and commands; fetch nothing.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Compare the files with their hashes; fetch nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch published weights once, with your token, and hash them; `cxrreport --weights DIR` uses them offline.

    Without a name: the 3B at 896 pixels, RadGraph-XL and CheXbert. Gated ones need their licence accepted on the hub,
    and `hf auth login` or HF_TOKEN. For a machine without a network, `--list` prints the files and the commands that
    fetch them elsewhere; a folder that was filled by hand is hashed by the same command.

    Example: `cxrreport weights --weights /data/weights paligemma2-3b-pt-896 radgraph-xl`
    """
    with guarded():
        from cxrreport import weights as work

        root = folder or weights_folder()
        if root is None:
            raise SettingsError(f"weights: give --weights DIR, or set {WEIGHTS}: the folder that they go into")
        names = names or list(work.DEFAULTS.values())
        if listing:
            _list(names, root, as_json)
        elif check:
            wrong = work.find_changed_files(root)
            if as_json:
                print_json({"wrong": wrong})
            else:
                typer.echo("\n".join(wrong) if wrong else "every file is as it was fetched")
            if wrong:
                raise typer.Exit(1)
        else:
            with progress_bar() as progress:
                fetched = work.fetch(names, root, progress=progress)
            if as_json:
                print_json(fetched)
                return
            table = table_of(str(root), "file", "SHA-256")
            for files in fetched.values():
                for file, digest in files.items():
                    table.add_row(file, digest[:16])
            stdout().print(table)
            typer.echo(f"All hashes: {root / work.INVENTORY}. From now on:\n  export {WEIGHTS}={root.absolute()}")


def _list(names: list[str], root: Path, as_json: bool) -> None:
    from cxrreport import weights as work

    chosen = work.select(names)
    if as_json:
        print_json({one.name: asdict(one) | {"present": work.is_complete(one.name, root)} for one in chosen})
        return
    for one in chosen:
        state = "there" if work.is_complete(one.name, root) else "gated: accept its licence first" if one.gated else ""
        typer.echo(f"# {one.name} ({one.purpose}){': ' if state else ''}{state}")
        typer.echo("\n".join(work.download_commands(one, root)))
