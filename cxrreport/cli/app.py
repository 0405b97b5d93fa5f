"""The application that every module of commands adds to."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from cxrreport.cli.output import say_error

UNUSABLE = 2
"""Exit code where something that was given cannot be used."""
_USAGE: Any = typer.BadParameter.__mro__[1]  # of the click that Typer brings along or finds installed


class Commands(TyperGroup):
    """A mistake in the command line itself is said as every other error is."""

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
    help="Chest X-ray reports, from DICOM to RadGraph F1. For research; not a medical device.",
)
