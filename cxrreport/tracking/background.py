"""Traces of a process that serves requests, sent by a thread."""

from __future__ import annotations

import logging
import queue
import threading

from cxrreport.tracking import mlflow_store, traces
from cxrreport.tracking.traces import ReportTrace

logger = logging.getLogger(__name__)

_MOST = 1000
"""Traces that wait for the store; more are dropped."""


class BackgroundTracer:
    """Logs traces without delaying the caller; a store that is down loses them, with a warning at the first.

    Args:
        uri: of the store.
        experiment: name of the experiment; created if it does not exist.

    Raises:
        TrackingError: the store cannot be reached now.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        with mlflow_store.translated_errors(uri):
            self._client = mlflow_store.connect(uri)
            self._experiment = mlflow_store.experiment(self._client, experiment, uri).experiment_id
        self._waiting: queue.Queue[ReportTrace] = queue.Queue(_MOST)
        self._warned = False
        threading.Thread(target=self._send_all, name="traces", daemon=True).start()

    def log(self, report: ReportTrace) -> None:
        """Log a trace soon."""
        try:
            self._waiting.put_nowait(report)
        except queue.Full:
            self._warn("the store is too slow")

    def flush(self) -> None:
        """Wait until all traces have been sent, or were lost."""
        self._waiting.join()

    def _send_all(self) -> None:
        while True:
            report = self._waiting.get()
            try:
                traces.send(self._client, self._experiment, report.event())
            except Exception as error:  # a request that was answered must not end the thread
                self._warn(type(error).__name__)
            finally:
                self._waiting.task_done()

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("traces of this server are lost (%s); the reports are not affected", reason)
