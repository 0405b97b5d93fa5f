"""Tracked runs of the commands that speak with archives: pull, push."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from cxrreport.records import Progress
from cxrreport.runs.command import Summary, flat, silent, tracked
from cxrreport.settings import PullSettings, PushSettings

if TYPE_CHECKING:
    from cxrreport.pacs.pull import PullSummary
    from cxrreport.pacs.push import PushSummary


def pull(settings: PullSettings, *, progress: Progress | None = None) -> Summary[PullSummary]:
    """Retrieve chest radiographs from an archive into `dicom` of the output folder. The same command resumes.

    MLflow gets counts, never an id.

    Raises:
        CxrReportError: as `pacs.pull.pull`.
    """
    from cxrreport.pacs.pull import DICOM
    from cxrreport.pacs.pull import pull as work

    with tracked("pull", settings) as (run, summarise):
        result = work(settings, progress or silent)
        facts = asdict(result) | {"images": str(settings.output / DICOM)}
        run.metrics(flat(facts))
    warnings = []
    if result.failed:
        warnings.append(f"{result.failed} studies could not be retrieved; re-run the same command")
    if not result.instances:
        warnings.append(f"nothing was retrieved; {settings.output / 'ledger.parquet'} gives the reasons")
    return summarise(facts, result, tuple(warnings))


def push(settings: PushSettings, *, progress: Progress | None = None) -> Summary[PushSummary]:
    """Send exported documents to the studies that they are about. The same command tries again what failed.

    Raises:
        CxrReportError: as `pacs.push.push`.
    """
    from cxrreport.pacs.push import push as work

    with tracked("push", settings) as (run, summarise):
        result = work(settings, progress or silent)
        facts = asdict(result)
        run.metrics(flat(facts))
    warnings = []
    if result.failed:
        warnings.append(f"{sum(result.failed.values())} documents could not be sent; re-run the same command")
    if result.refused:
        warnings.append(f"documents were refused; {settings.output / 'ledger.parquet'} gives the reasons")
    return summarise(facts, result, tuple(warnings))
