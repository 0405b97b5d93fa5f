"""The command `listen`: receive or poll, wait until a study is quiet, report it, send its documents.

Threads: connections store instances; one generates; one sends, so that a slow archive does not hold up the model; one
polls. The queue on disk is all that they share, and all that a restarted service needs.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cxrreport.errors import CxrReportError, MissingExtraError, OutputError, PeerError, RefusedImage
from cxrreport.pacs.arrival import RECEIVED, Arrivals, hashed
from cxrreport.pacs.monitor import Audit, HealthServer
from cxrreport.pacs.peers import pause_after
from cxrreport.pacs.push import FHIR, DocumentSender
from cxrreport.pacs.queue import ENDED, Document, Queue, State, Study
from cxrreport.pacs.reporting import IMAGES, ModelReporter, Reporter
from cxrreport.records import Reason
from cxrreport.settings import ListenSettings
from cxrreport.storage.output_folder import output_folder

COMMAND = "listen"
_WORK = "work"
_IDLE, _LOG_EVERY, _CLEAN_EVERY = 0.1, 60.0, 30.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenSummary:
    """Result of `listen` when it was stopped.

    Args:
        studies: studies of the queue by state.
        reasons: of those that failed, were excluded or given up.
        refused: what was refused on arrival, by reason.
        instances: instances received since the queue was made.
        documents_sent: documents sent since then.
        warning: warning to be shown with the reports, or `None`.
    """

    studies: Mapping[str, int]
    reasons: Mapping[str, int]
    refused: Mapping[str, int]
    instances: int
    documents_sent: int
    warning: str | None


def listen(
    settings: ListenSettings,
    *,
    log: Callable[[Mapping[str, int]], None] = lambda _: None,
    started: Callable[[int | None, int | None], None] = lambda *_: None,
    stop: threading.Event | None = None,
    make_reporter: Callable[[ListenSettings], Reporter] = ModelReporter,
) -> ListenSummary:
    """Run the service until it is stopped: by SIGTERM or Ctrl-C, `stop`, or `settings.studies`.

    A study that is being generated or sent then is finished or repeated by the next start.

    Args:
        settings: settings of the service; they may differ from those of the last start.
        log: called every minute with the number of studies in each state.
        started: called with the ports of receiver and health endpoint when the service is ready.
        stop: stops it from another thread.
        make_reporter: makes what writes the documents.

    Raises:
        OutputError: another service uses the folder, a port is in use, or a disk is full at the start.
        MissingExtraError, SettingsError: as `open_peer`; also CxrReportError of the model.
    """
    recorded = settings.model_dump(mode="json")
    with output_folder(settings.output, command=COMMAND, settings=recorded, volatile=recorded.keys()) as folder:
        service = _Service(settings, make_reporter(settings), stop or threading.Event())
        try:
            with _stopped_by_signals(service.stop):
                service.run(log, started)
        finally:
            service.queue.close()
        folder.update(settings=recorded)
        return service.summary


class _Service:
    def __init__(self, settings: ListenSettings, reporter: Reporter, stop: threading.Event) -> None:
        self.stop = stop
        self._settings, self._reporter, self._folder = settings, reporter, settings.output
        self.queue, self._audit = Queue(settings.output), Audit(settings.output)
        self._sender = DocumentSender(settings)
        self._arrivals = Arrivals(settings, self.queue, self._audit)
        self._threads: list[threading.Thread] = []

    def run(self, log: Callable[[Mapping[str, int]], None], started: Callable[[int | None, int | None], None]) -> None:
        """Work until stopped."""
        settings, ends = self._settings, self._ended() + (self._settings.studies or 0)
        with ExitStack() as stack:
            receiver = health = None
            if settings.receive is not None:
                try:
                    from cxrreport.pacs.receive import Receiver
                except ImportError as error:
                    raise MissingExtraError("receiving studies", "pacs") from error

                receiver = stack.enter_context(
                    Receiver(
                        settings.receive,
                        lambda data, sender: self._arrivals.receive(data, sender.ae_title),
                        lambda what, sender: self._arrivals.refuse_connection(what, sender.ae_title, sender.address),
                    )
                )
            if settings.health_port is not None:

                def gauges() -> dict[str, float]:
                    return {"associations": receiver.associations() if receiver else 0, "bytes": self._arrivals.stored}

                health = stack.enter_context(HealthServer(settings.health_port, self.queue, self._healthy, gauges))
            for work in (self._generate_all, self._send_all, *((self._poll_all,) if settings.poll else ())):
                thread = threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True)
                thread.start()
                self._threads.append(thread)
            started(receiver.port if receiver else None, health.port if health else None)
            logged = cleaned = time.monotonic()
            well = True
            while not self.stop.wait(_IDLE) and well:
                well = self._healthy() or self.stop.is_set()
                self._arrivals.waiting = self.queue.waiting()
                if settings.studies is not None and self._ended() >= ends:
                    break
                if time.monotonic() > logged + _LOG_EVERY:
                    log(self.queue.counts())
                    logged = time.monotonic()
                if time.monotonic() > cleaned + _CLEAN_EVERY:
                    self._clean()
                    cleaned = time.monotonic()
            self.stop.set()
            for thread in self._threads:
                thread.join()
        self._clean()
        log(self.queue.counts())
        if not well:
            raise OutputError(f"{self._folder}: a part of the service has stopped; its log says why; start it again")

    @property
    def summary(self) -> ListenSummary:
        """What the queue holds."""
        queue = Queue(self._folder)
        try:
            return ListenSummary(
                studies=queue.counts(),
                reasons=queue.reasons(),
                refused=queue.refusals(),
                warning=self._reporter.warning,
                **queue.totals(),
            )
        finally:
            queue.close()

    def _ended(self) -> int:
        counts = self.queue.counts()
        return sum(counts[state.value] for state in ENDED)

    def _healthy(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def _poll_all(self) -> None:
        poll = self._settings.poll
        while poll is not None and not self.stop.is_set():
            try:
                self._arrivals.poll(poll, self.stop)
            except CxrReportError as error:
                logger.warning("poll: %s", error)
                self.queue.refuse("poll failed")
            self.stop.wait(poll.every_s)

    # --- Reports ---

    def _generate_all(self) -> None:
        while not self.stop.is_set():
            study = self.queue.next_to_generate(self._settings.quiet_s)
            if study is None:
                self.stop.wait(_IDLE)
                continue
            with self._attempt(study):
                self._generate(study)

    def _generate(self, study: Study) -> None:
        self.queue.set_quiet(study)
        instances = self.queue.instances(study)
        if self.queue.patients(study.study) > 1:
            self._end(study, State.GIVEN_UP, Reason.PATIENT_CONFLICT, "its instances name several patients")
            return
        wanted = [one for one in instances if one.action == "report"]
        if not wanted:
            rules = ", ".join(sorted({one.rule for one in instances})) or "no instance is kept"
            self._end(study, State.EXCLUDED, Reason.ROUTED_AWAY, rules)
            return
        work = self._folder / _WORK / hashed(study.study) / str(study.round)
        shutil.rmtree(work, ignore_errors=True)  # of an attempt that was interrupted
        (work / IMAGES).mkdir(parents=True)
        for one in wanted:
            source = self._folder / one.file
            _link(source, work / IMAGES / source.name)
        try:
            made = self._reporter.report(work)
        except RefusedImage as error:
            self._end(study, State.EXCLUDED, error.reason, error.detail)
            return
        documents = [
            Document(name=_document_name(kind, path), kind=kind, file=path.relative_to(self._folder).as_posix())
            for kind, path in made
        ]
        self.queue.set_generated(study, documents)
        self._audit.write("generated", study=study.study, documents=len(documents), round=study.round)

    def _send_all(self) -> None:
        while not self.stop.is_set():
            study = self.queue.next_to_send()
            if study is None:
                self.stop.wait(_IDLE)
                continue
            with self._attempt(study):
                self._send(study)

    def _send(self, study: Study) -> None:
        for document in self.queue.unsent(study):
            try:
                new = self._sender.send(document.kind, self._folder / document.file, attempts=1)
            except RefusedImage as error:
                if error.reason == Reason.STUDY_UNKNOWN:  # the archive may get it later than this service
                    raise PeerError(f"{error.reason}: {error.detail}") from None
                self._end(study, State.GIVEN_UP, error.reason, error.detail)
                return
            self.queue.set_document_sent(document)
            where = "fhir" if document.kind == FHIR else "archive"
            self._audit.write(
                "sent", study=study.study, format=document.kind, to=where, outcome="new" if new else "present"
            )
        self._end(study, State.SENT)

    @contextmanager
    def _attempt(self, study: Study) -> Iterator[None]:
        """Whatever fails in the block is an attempt of this study that failed, and the service lives on."""
        try:
            yield
        except Exception as error:
            ours = isinstance(error, CxrReportError)
            if not ours:  # without its message, which may hold a value of the study
                place = traceback.extract_tb(error.__traceback__)[-1]
                logger.error("a study failed (%s at %s:%s)", type(error).__name__, place.filename, place.lineno)
            reason = type(error).__name__
            if isinstance(error, PeerError):
                unknown = str(error).startswith(Reason.STUDY_UNKNOWN)
                reason = (Reason.STUDY_UNKNOWN if unknown else Reason.NOT_STORED).value
            detail = str(error) if ours else ""
            self._audit.write("failed", study=study.study, reason=reason, attempt=study.attempts + 1)
            if study.attempts + 1 >= self._settings.attempts:
                self._end(study, State.GIVEN_UP, reason, detail)
            else:
                due = time.time() + pause_after(study.attempts + 1, self._settings.backoff_s)
                self.queue.fail(study, reason, detail, due)

    def _end(self, study: Study, state: State, reason: str = "", detail: str = "") -> None:
        self.queue.end(study, state, str(reason), detail)
        self._audit.write(state.value, study=study.study, reason=str(reason), round=study.round)

    # --- Files ---

    def _clean(self) -> None:
        """Remove the files of studies that ended long enough ago."""
        settings = self._settings
        for study in self.queue.expired(settings.keep_hours * 3600, settings.keep_given_up_hours * 3600):
            _, size = self.queue.size_of(study)
            self.queue.set_purged(study)  # first: a file without a row is removed at the next start
            for name in (RECEIVED, _WORK):
                shutil.rmtree(self._folder / name / hashed(study), ignore_errors=True)
            self._arrivals.freed(size)


def _document_name(kind: str, path: Path) -> str:
    return f"{kind}/{path.name}"  # a hash of content and model, see `export`


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the work in hand; outside of the main thread they cannot be handled."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, lambda *_: stop.set()) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
