"""The command that writes documents for other systems."""

from __future__ import annotations

from cxrreport import runs
from cxrreport.cli.app import command
from cxrreport.cli.options import CONFIG, GENERATED, OUTPUT, SET, TRACK, Given, on_data
from cxrreport.cli.output import perform, print_summary
from cxrreport.settings import ExportSettings


@command(
    ExportSettings,
    CONFIG,
    GENERATED,
    OUTPUT,
    on_data("formats", "--format", metavar="sr|fhir", help="Document format; repeatable.", show_default="both"),
    on_data("data", "--input", "-i", metavar="DIR", help="Output folder of ingest.", show_default="that of generate"),
    on_data("sources", metavar="DIR", help="Folder of the DICOM files.", show_default="as ingested"),
    on_data("language", metavar="TAG", help="Language of the reports."),
    TRACK,
    SET,
)
def export(given: Given[ExportSettings]) -> None:
    """Write reports as DICOM Structured Reports and FHIR resources that refer to their images.

    Example: `cxrreport export --predictions reports --output documents`
    """
    print_summary(perform(runs.export, given.settings()), given.as_json)
