"""The commands that speak with archives: pull, push, listen."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import typer
from rich.markup import escape

from cxrreport import runs
from cxrreport.cli.app import command
from cxrreport.cli.options import (
    ADAPTER,
    CHECKPOINT,
    CONFIG,
    OUTPUT,
    SET,
    TRACK,
    Given,
    Option,
    on_data,
    on_query,
    on_work,
)
from cxrreport.cli.output import echo, perform, print_json, print_summary, stderr, stdout, table_of
from cxrreport.settings import ListenSettings, PullSettings, PushSettings

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


on_queue = partial(Option, panel="Instead of listening")


@command(
    ListenSettings,
    CONFIG,
    on_data("output", "-o", metavar="DIR", help="Folder of the queue."),
    ARCHIVE,
    on_data("fhir", kind=str, metavar="URL", help="FHIR server for bundles."),
    CHECKPOINT,
    ADAPTER,
    on_work("quiet_s", help="Seconds without an instance after which a study is complete."),
    on_work("studies", help="Stop after this many studies have ended."),
    on_queue(
        "dry_run", kind=Path, metavar="DIR", help="Show what the rules would do with the DICOM files in a folder."
    ),
    on_queue("sender", kind=str, metavar="AE", help="With --dry-run: AE title of the sender.", default=""),
    on_queue("requeue", kind=str, metavar="STUDY|all", help="Try studies again that were given up, and end."),
    TRACK,
    SET,
)
def listen(given: Given[ListenSettings]) -> None:
    """Receive studies from a modality or PACS, report them, and send the reports on, until stopped.

    SIGTERM and Ctrl-C stop it; the same command continues.

    Example: `cxrreport listen listen.yaml`
    """
    folder, sender, study = (given.options.pop(name, None) for name in ("dry_run", "sender", "requeue"))
    settings = given.settings()
    if study is not None:
        done = runs.requeue(settings.output, None if study == "all" else study)
        if given.as_json:
            print_json({"requeued": done})
        else:
            echo(f"{done} {'study' if done == 1 else 'studies'} requeued")
    elif folder is not None:
        routed = list(runs.route(settings, folder, sender or ""))
        if given.as_json:
            print_json({"files": [asdict(row) for row in routed]})
            return
        table = table_of("", "file", "modality", "body part", "description", "action", "by")
        for row in routed:
            table.add_row(*map(escape, (row.file, row.modality, row.body_part, row.description, row.action, row.rule)))
        stdout().print(table)
    else:
        summary = runs.listen(settings, started=_say_ready)
        print_summary(summary, given.as_json)


def _say_ready(port: int | None, health: int | None) -> None:
    places = [f"port {port}"] if port else ["polling"]
    if health:
        places.append(f"health at http://127.0.0.1:{health}/metrics")
    stderr().print(f"listening: {', '.join(places)}", highlight=False)
