"""Tracked runs of the commands that speak with archives: pull, push, listen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cxrreport.records import Progress
from cxrreport.runs.command import Summary, flat, silent, tracked
from cxrreport.settings import ListenSettings, PullSettings, PushSettings

if TYPE_CHECKING:
    from cxrreport.pacs.arrival import Routed
    from cxrreport.pacs.pull import PullSummary
    from cxrreport.pacs.push import PushSummary
    from cxrreport.pacs.service import ListenSummary


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


def listen(
    settings: ListenSettings, *, started: Callable[[int | None, int | None], None] = lambda *_: None
) -> Summary[ListenSummary]:
    """Receive studies, report them and send the reports on, until SIGTERM or Ctrl-C. The same command continues.

    MLflow gets the number of studies in each state every minute.

    Args:
        settings: of the service.
        started: called with the ports of receiver and health endpoint when it is ready.

    Raises:
        CxrReportError: as `pacs.service.listen`.
    """
    from cxrreport.pacs.service import listen as work

    with tracked("listen", settings) as (run, summarise):
        step = 0

        def log(counts: Mapping[str, int]) -> None:
            nonlocal step
            step += 1
            run.metrics({f"studies/{state.replace(' ', '_')}": count for state, count in counts.items()}, step)

        result = work(settings, log=log, started=started)
        facts = {name: value for name, value in asdict(result).items() if name != "warning"}
        run.metrics(flat(facts))
    warnings: tuple[str, ...] = (result.warning,) if result.warning else ()
    if given_up := result.studies.get("given up"):
        warnings += (f"studies given up: {given_up}; `cxrreport listen --requeue all` tries them again",)
    return summarise(facts, result, warnings)


def route(settings: ListenSettings, folder: Path, sender: str) -> Iterator[Routed]:
    """What the rules of a service would do with the DICOM files below a folder. Nothing is stored or tracked.

    Raises:
        InputError: there is no such folder.
    """
    from cxrreport.pacs.arrival import dry_run

    return dry_run(settings, folder, sender)


def requeue(folder: Path, study: str | None) -> int:
    """Let studies that a service has given up be tried again, also while it runs; returns how many.

    Args:
        folder: output folder of `listen`.
        study: the name that `status` shows; `None` for all.

    Raises:
        InputError: there is no queue, or no such study in it.
    """
    from cxrreport.pacs.monitor import requeue as work

    return work(folder, study)
