"""Ingest: DICOM and reports to a manifest and images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cxrreport.records import Progress
from cxrreport.runs.command import Summary, flat, log_data, silent, tracked
from cxrreport.settings import IngestSettings

if TYPE_CHECKING:
    from cxrreport.ingestion.summary import IngestSummary


def ingest(
    settings: IngestSettings, *, progress: Progress | None = None, rewriter: Callable[[str], str] | None = None
) -> Summary[IngestSummary]:
    """Convert DICOM (or PNG, JPEG) and reports into a manifest and model-ready images.

    Args:
        settings: input, layout, image and report options.
        progress: called with completed and total headers, reports and studies.
        rewriter: removes mentions of prior studies from a section, instead of the rules.

    Raises:
        CxrReportError: see `ingestion.ingest.ingest`.
    """
    from cxrreport.dataset import Manifest
    from cxrreport.ingestion.ingest import ingest as work

    with tracked("ingest", settings) as (run, summarise):
        result = work(settings, progress or silent, rewriter=rewriter)
        facts = {"layout": result.layout} | ingest_facts(result)
        run.metrics(flat(facts))
        run.artifact(result.folder / "ingest.json")
        if settings.shard is not None:
            return summarise(facts, result)
        log_data(run, Manifest.open(settings.output), "output")
        run.artifact(settings.output / "contact_sheet.png")
    nothing = f"nothing was kept; {settings.output / 'ledger.parquet'} says why, file by file"
    return summarise(facts, result, () if result.kept else (nothing,))


def ingest_facts(result: IngestSummary) -> dict[str, Any]:
    """Counts of an ingest as JSON values."""
    return {
        "read": result.read,
        "kept": result.kept,
        "excluded": dict(result.left_out),
        "notes": dict(result.notes),
        "split": dict(result.studies),
        "reports_in_several_splits": result.reports_in_several_splits,
        "near_duplicate_reports": result.near_duplicate_reports,
        "mentions_of_earlier_studies": dict(result.texts),
    }
