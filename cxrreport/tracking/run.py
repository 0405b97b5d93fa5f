"""The run that a command reports to, and its connection to MLflow through a spool on disk.

MLflow receives settings, counts, scores, digests, versions, and the files that a command logs; never a patient tag or
the text of a report.
"""

from __future__ import annotations

import hashlib
import logging
import posixpath
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrreport.tracking.spool import Spool
from cxrreport.tracking.traces import ReportTrace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as StoredRun

logger = logging.getLogger(__name__)


_NONE: Mapping[str, float] = {}
_LONGEST = 250  # MLflow's limit for keys
_DIGITS = 8  # of the hash that tells names apart


def clean_name(name: str) -> str:
    """A key that MLflow accepts: letters, digits and `_-./: `, at most 250 characters, and a normal path.

    A name that is not such a key gets a part of its hash as an ending, so that different names stay different.
    """
    clean = posixpath.normpath(re.sub(r"[^\w\-./: ]|^/+|\.{2,}", "_", name))[:_LONGEST]
    if clean == name != ".":
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]
    return f"{clean[: _LONGEST - _DIGITS - 1].rstrip('/')}-{digest}"


def _clean(values: Mapping[str, float]) -> dict[str, float]:
    return {clean_name(name): float(value) for name, value in values.items()}


class Run:
    """The run of one command. This base class logs nothing: it is the run of a command without tracking."""

    run_id = ""
    """Id of the run in MLflow; empty without tracking."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers, with a `step` if they form a curve. A step that was logged before is not logged again.

        A number without a step is step 0 of its curve: a command that is repeated after it was killed at its end has
        logged it already.
        """

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy the file or folder `path` into the artifacts of the run, below `folder`."""

    def text(self, name: str, content: str) -> None:
        """Store a text as an artifact of this name."""

    def dataset(self, name: str, digest: str, context: str, **facts: str | int | float) -> None:
        """Record the digest of data that the command reads or writes, never the data.

        Args:
            name: kind of data, e.g. `manifest`.
            digest: hash of the content, hexadecimal.
            context: use of the data: `training`, `inference`, `evaluation`, `output`.
            facts: numbers that describe it, e.g. counts.
        """

    def tags(self, values: Mapping[str, str]) -> None:
        """Set searchable tags."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table, which MLflow shows as one, as the artifact `<name>.json`."""

    def child(self, name: str, values: Mapping[str, float]) -> None:
        """Log numbers in a run of their own below this one, so that MLflow compares runs by the same names."""

    def model(self, name: str, digest: str, folder: Path | None, params: Mapping[str, str]) -> None:
        """Record the model that this run made, which appears among the models of the experiment.

        Args:
            name: of the model.
            digest: hash of its weights, hexadecimal.
            folder: files to log with it; `None` for none.
            params: what distinguishes it.
        """

    def model_scores(self, digest: str, values: Mapping[str, float], data: str) -> None:
        """Log numbers of the model with this digest, if the store has it, on the data with the digest `data`."""

    def trace(self, report: ReportTrace) -> str:  # noqa: ARG002
        """Log a report as a trace of this run; returns its id, empty without tracking."""
        return ""

    def data(self, name: str, digest: str, facts: Mapping[str, str]) -> None:
        """Record evaluation data as a dataset of the experiment, which can be found by its tag `digest`."""

    def link(
        self, tag: str, made: str, digest: str, *, parent: bool = False, values: Mapping[str, float] = _NONE
    ) -> None:
        """Tag the run with the id of the latest run in the store that wrote data with this digest, if there is one.

        Args:
            tag: name of the tag.
            made: name of the data, as passed to `dataset` in the other run.
            digest: complete digest of the data.
            parent: also nest this run under the other one.
            values: numbers that the other run gets as well.
        """


class MlflowRun(Run):
    """A run in an MLflow store. Everything is written to a spool, from which a thread sends it."""

    def __init__(self, client: MlflowClient, run: StoredRun, spool: Spool, *, resumed: bool) -> None:
        self.run_id = run.info.run_id
        self._start_time = int(run.info.start_time)
        self._client = client
        self._spool = spool
        self._resumed = resumed
        self._last_sample = -1
        self._logged_steps: dict[str, set[int]] = {}

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """See `Run.metrics`."""
        now = int(time.time() * 1000)
        for key, value in values.items():
            name = clean_name(key)
            if not self._was_logged(name, step or 0):
                self._put("metrics", name=name, value=float(value), time=now, step=step or 0)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """See `Run.artifact`."""
        self._put("artifact", path=str(path.resolve()), folder=folder)

    def text(self, name: str, content: str) -> None:
        """See `Run.text`."""
        self._put("text", name=name, content=content)

    def dataset(self, name: str, digest: str, context: str, **facts: str | int | float) -> None:
        """See `Run.dataset`."""
        self._put("dataset", name=name, digest=digest, context=context, facts=facts)
        # Runs cannot be searched by the digest of a dataset, which is truncated as well; by tags they can.
        self.tags({f"digest.{context}.{name}": digest})

    def tags(self, values: Mapping[str, str]) -> None:
        """See `Run.tags`."""
        for key, value in values.items():
            self._put("tags", name=clean_name(key), value=value)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """See `Run.table`."""
        self._put("table", name=f"{name}.json", columns=list(columns), rows=[list(row) for row in rows])

    def child(self, name: str, values: Mapping[str, float]) -> None:
        """See `Run.child`."""
        self._put("child", name=name, values=_clean(values))

    def model(self, name: str, digest: str, folder: Path | None, params: Mapping[str, str]) -> None:
        """See `Run.model`."""
        path = None if folder is None else str(folder.resolve())
        self._put("model", name=name, digest=digest, path=path, params=dict(params))

    def model_scores(self, digest: str, values: Mapping[str, float], data: str) -> None:
        """See `Run.model_scores`."""
        self._put("model_scores", digest=digest, values=_clean(values), data=data)

    def trace(self, report: ReportTrace) -> str:
        """See `Run.trace`."""
        event = report.event(run_id=self.run_id)
        self._spool.put(event)
        return str(event["trace_id"])

    def data(self, name: str, digest: str, facts: Mapping[str, str]) -> None:
        """See `Run.data`."""
        self._put("data", name=name, digest=digest, facts=dict(facts))

    def link(
        self, tag: str, made: str, digest: str, *, parent: bool = False, values: Mapping[str, float] = _NONE
    ) -> None:
        """See `Run.link`."""
        # The sending thread does the search: a store that does not respond would block the command.
        found_by = f"digest.output.{made}"
        now = int(time.time() * 1000)  # of the event, so that one that is sent twice is one point
        self._put("link", name=tag, found_by=found_by, digest=digest, parent=parent, values=_clean(values), time=now)

    def sample(self, values: Mapping[str, float]) -> None:
        """Log system metrics. Steps are seconds since the start of the run, so none is repeated after a resume."""
        now = int(time.time() * 1000)
        step = self._last_sample = max(self._last_sample + 1, (now - self._start_time) // 1000)
        for name, value in values.items():
            self._put("metrics", name=f"system/{name}", value=float(value), time=now, step=step)

    def end(self, status: str) -> None:
        """Close the run with `status` after everything is sent, or warn which file holds the unsent events."""
        self._put("status", status=status)
        if not self._spool.close():
            logger.warning(
                "MLflow run %s is incomplete: the unsent events are in %s. The next run with an output in the same "
                "folder sends them, or run: cxrreport sync %s",
                self.run_id,
                self._spool.path,
                shlex.quote(str(self._spool.path.parent)),
            )

    def _put(self, kind: str, **values: Any) -> None:
        self._spool.put({"kind": kind, "run_id": self.run_id, **values})

    def _was_logged(self, name: str, step: int) -> bool:
        # A command that resumes from a checkpoint repeats the steps since then.
        if not self._resumed:
            return False
        if name not in self._logged_steps:
            self._logged_steps[name] = set()
            with suppress(Exception):  # a repeated step is better than a failed command
                self._logged_steps[name] = {point.step for point in self._client.get_metric_history(self.run_id, name)}
        return step in self._logged_steps[name]
