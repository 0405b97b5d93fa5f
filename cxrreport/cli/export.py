"""The command that writes documents for other systems."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cxrreport import runs
from cxrreport.cli.app import app
from cxrreport.cli.options import Config, Json, Output, Track, settings_of
from cxrreport.cli.output import guarded, perform
from cxrreport.settings import ExportSettings


class Format(StrEnum):
    """What is written."""

    SR = "sr"
    FHIR = "fhir"


@app.command()
def export(
    config: Config = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", "-p", metavar="DIR", help="Output folder of generate.")
    ] = None,
    output: Output = None,
    formats: Annotated[
        list[Format] | None, typer.Option("--format", help="Repeatable.", show_default="sr and fhir")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--input", "-i", metavar="DIR", help="Output folder of ingest.", show_default="generate's"),
    ] = None,
    sources: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the DICOM files lie.", show_default="as ingested")
    ] = None,
    language: Annotated[str | None, typer.Option(metavar="TAG", help="Of the reports.", show_default="en")] = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Write reports as DICOM Structured Reports and FHIR resources, each referring to its images.

    Example: `cxrreport export --predictions reports --output documents`
    """
    with guarded():
        settings = settings_of(
            ExportSettings,
            config,
            predictions=predictions,
            output=output,
            formats=tuple(formats) if formats else None,
            data=data,
            sources=sources,
            language=language,
            tracking={"enabled": track},
        )
        perform(runs.export, settings, as_json)
