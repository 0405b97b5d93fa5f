"""The service with one fixed text instead of a model, in a thread or, as a script, in a process that can be killed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pacs.conftest import OFF, write_fixed_reports

from cxrreport.errors import RefusedImage
from cxrreport.ingestion.ingest import ingest
from cxrreport.pacs.reporting import IMAGES, _reason, export_documents
from cxrreport.pacs.service import ListenSummary, listen
from cxrreport.settings import IngestSettings, ListenSettings, build

MODALITY = {"ae_title": "STORESCU", "address": "127.0.0.1"}


class FixedReporter:
    """See `reporting.Reporter`."""

    warning = None

    def __init__(self, settings: ListenSettings) -> None:
        self.formats = settings.formats

    def report(self, work: Path) -> list[tuple[str, Path]]:
        values = {"input": work / IMAGES, "output": work / "data", "layout": "folder", "require_report": False}
        ingested = ingest(IngestSettings.model_validate(values | {"tracking": OFF}))
        if not ingested.kept:
            raise RefusedImage(*_reason(ingested.left_out))
        write_fixed_reports(work / "data", work / "reports")
        return export_documents(work, self.formats)


def listen_settings(output: Path, archive: Any, **values: Any) -> ListenSettings:
    given = {"output": output, "quiet_s": 0.3, "backoff_s": 0.2, "health_port": 0, "tracking": OFF, "attempts": 3}
    receive = {"port": 0, "peers": [MODALITY], "timeout_s": 10} | values.pop("receive", {})
    return build(ListenSettings, given | {"archive": archive, "receive": receive} | values, where="test")


@dataclass
class Running:
    """A service in a thread."""

    settings: ListenSettings
    port: int = 0
    health: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    summary: ListenSummary | None = None
    error: BaseException | None = None

    @property
    def node(self) -> str:
        return f"CXRREPORT@127.0.0.1:{self.port}"


@contextmanager
def running(settings: ListenSettings, make_reporter: Any = FixedReporter, **given: Any) -> Iterator[Running]:
    """The service; after the block, it is stopped and `summary` is set."""
    service, ready = Running(settings), threading.Event()

    def started(port: int | None, health: int | None) -> None:
        service.port, service.health = port or 0, health or 0
        ready.set()

    def run() -> None:
        try:
            service.summary = listen(settings, started=started, stop=service.stop, make_reporter=make_reporter, **given)
        except BaseException as error:
            service.error = error
        ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(60)
    try:
        yield service
    finally:
        service.stop.set()
        thread.join(60)
        assert not thread.is_alive()


if __name__ == "__main__":

    def say(port: int | None, health: int | None) -> None:
        sys.stdout.write(f"{port} {health}\n")
        sys.stdout.flush()

    listen(ListenSettings.model_validate_json(Path(sys.argv[1]).read_text()), started=say, make_reporter=FixedReporter)
