"""The commands that speak with archives: pull, push."""

from __future__ import annotations

import typer

from cxrreport import runs
from cxrreport.cli.app import command
from cxrreport.cli.options import CONFIG, OUTPUT, SET, TRACK, Given, on_data, on_query, on_work
from cxrreport.cli.output import perform, print_summary
from cxrreport.settings import PullSettings, PushSettings

ARCHIVE = on_data("archive", kind=str, metavar="URL|AE@HOST:PORT", help="DICOMweb root, or a DICOM node.")
ATTEMPTS = on_work("attempts", help="Attempts of each request.")


@command(
    PullSettings,
    CONFIG,
    ARCHIVE,
    OUTPUT,
    on_query("studies", metavar="FILE", help="Table of study UIDs or accession numbers."),
    on_query("patient", metavar="ID", help="Patient ID."),
    on_query("accession", metavar="NUMBER", help="Accession number."),
    on_query("study", metavar="UID", help="Study Instance UID."),
    on_query("since", kind=str, metavar="DATE", help="First study date, 2024-01-31."),
    on_query("until", kind=str, metavar="DATE", help="Last study date."),
    on_query("description", metavar="TEXT", help="Study description; * and ? are wildcards."),
    on_query("modalities", "--modality", metavar="CODE", help="Modality; repeatable.", show_default="CR, DX"),
    on_query("limit", help="Retrieve only the first studies."),
    on_work("workers", help="Studies retrieved at a time."),
    on_work("per_second", help="Most instances a second."),
    ATTEMPTS,
    TRACK,
    SET,
)
def pull(given: Given[PullSettings]) -> None:
    """Retrieve chest radiographs from a PACS. Re-run the same command to resume. Exit code 1 if studies are missing.

    Example: `cxrreport pull --archive https://pacs.example.org/dicom-web --since 2024-01-01 --output pulled`
    """
    summary = perform(runs.pull, given.settings())
    print_summary(summary, given.as_json)
    if summary.result.failed:
        raise typer.Exit(1)


@command(
    PushSettings,
    CONFIG,
    on_data("documents", "-d", metavar="DIR", help="Output folder of export."),
    ARCHIVE,
    on_data("fhir", kind=str, metavar="URL", help="FHIR server for bundles."),
    OUTPUT,
    on_data("unknown_study", help="What to do if the archive does not have the study."),
    ATTEMPTS,
    TRACK,
    SET,
)
def push(given: Given[PushSettings]) -> None:
    """Send exported documents to a PACS or FHIR server, and read them back. Re-run the command to send what failed.

    Example: `cxrreport push --documents documents --archive ORTHANC@127.0.0.1:4242 --output pushed`
    """
    summary = perform(runs.push, given.settings())
    print_summary(summary, given.as_json)
    if summary.result.failed:
        raise typer.Exit(1)
