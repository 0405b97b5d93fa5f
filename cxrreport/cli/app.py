"""The application that every module adds its commands to, and the options before a command."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cxrreport import __version__
from cxrreport.cli.options import JSON, Given, Option, S, expanded
from cxrreport.cli.output import guarded, say_error
from cxrreport.settings import WEIGHTS

UNUSABLE = 2
"""Exit code for input that cannot be used."""
_USAGE: Any = typer.BadParameter.__mro__[1]  # UsageError of the click that Typer brings or finds installed


class Commands(TyperGroup):
    """Commands whose usage errors are reported like all other errors."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run, and end the process with its exit code."""
        try:
            code = super().main(*args, **options | {"standalone_mode": False})
        except _USAGE as error:
            where = error.ctx.command_path if error.ctx else "cxrreport"
            say_error(f"{error.format_message().rstrip('.')}; see `{where} --help`")
            code = UNUSABLE
        raise SystemExit(code)


app = typer.Typer(
    name="cxrreport",
    cls=Commands,
    pretty_exceptions_show_locals=False,  # a traceback must not print reports or patient tags
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Chest X-ray report generation from DICOM to RadGraph F1. For research only; not a medical device.",
)

WeightsFolder = Annotated[
    Path | None,
    typer.Option("--weights", metavar="DIR", help=f"Weights folder; overrides {WEIGHTS}.", callback=expanded),
]


@app.callback(invoke_without_command=True)
def all_commands(
    context: typer.Context,
    weights: WeightsFolder = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Options of all commands."""
    # Worker processes would look for modules of Python in the working folder first, where a user may have a types.py.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    if version:
        typer.echo(f"cxrreport {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    if weights is not None:
        os.environ[WEIGHTS] = str(weights.absolute())  # inherited by worker processes


def command(model: type[S], *options: Option) -> Callable[[Callable[[Given[S]], None]], None]:
    """Add a command whose options are fields of `model`, and `--json`; its function takes those that were given."""

    def add(work: Callable[[Given[S]], None]) -> None:
        accepted = (*options, JSON)

        @guarded()
        def run(**values: Any) -> None:
            named = ((option.field, values[option.name]) for option in accepted)
            work(Given(model, {field: value for field, value in named if value is not None and value != []}))

        parameters = [option.parameter(model) for option in accepted]
        run.__name__, run.__doc__ = work.__name__, work.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        app.command()(run)

    return add
