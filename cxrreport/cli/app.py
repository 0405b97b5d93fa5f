"""The application that every module of commands adds to."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="cxrreport",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # a traceback must not print reports or patient tags
    rich_markup_mode="markdown",
    help="Chest X-ray reports, from DICOM to RadGraph F1. For research; not a medical device.",
)
