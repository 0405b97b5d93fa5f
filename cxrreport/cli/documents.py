"""The command that writes documents for other systems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cxrreport import runs
from cxrreport.cli.app import app
from cxrreport.cli.options import Assignments, Config, Generated, Json, Output, Track, on_data, settings_of
from cxrreport.cli.output import guarded, perform, print_summary
from cxrreport.settings import ExportSettings


@app.command()
def export(
    config: Config = None,
    predictions: Generated = None,
    output: Output = None,
    formats: Annotated[
        list[str] | None,
        on_data("--format", metavar="sr|fhir", help="Document format; repeatable.", show_default="both"),
    ] = None,
    data: Annotated[
        Path | None,
        on_data("--input", "-i", metavar="DIR", help="Output folder of ingest.", show_default="that of generate"),
    ] = None,
    sources: Annotated[
        Path | None, on_data(metavar="DIR", help="Folder of the DICOM files.", show_default="as ingested")
    ] = None,
    language: Annotated[str | None, on_data(metavar="TAG", help="Language of the reports.", show_default="en")] = None,
    track: Track = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Write reports as DICOM Structured Reports and FHIR resources that refer to their images.

    Example: `cxrreport export --predictions reports --output documents`
    """
    with guarded():
        settings = settings_of(
            ExportSettings,
            config,
            assignments,
            predictions=predictions,
            output=output,
            formats=tuple(formats) if formats else None,
            data=data,
            sources=sources,
            language=language,
            tracking={"enabled": track},
        )
        print_summary(perform(runs.export, settings), as_json)
