"""One verb, one MLflow run.

What MLflow gets: settings, counts, scores, digests, versions, and the files that a verb hands over. Never a patient tag
or the text of a report.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cxrreport
from cxrreport.errors import CxrReportError, OutputError
from cxrreport.settings import Settings, TrackingSettings
from cxrreport.tracking import mlflow_store
from cxrreport.tracking.spool import Send, Spool, resend

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from mlflow.entities import Run as StoredRun

logger = logging.getLogger(__name__)

PACKAGES = ("cxrreport", "torch", "transformers", "peft", "radgraph", "pydicom", "monai", "numpy", "mlflow")
"""Distributions whose versions become tags."""
ELSEWHERE = frozenset({"tracking", "workers"})
"""Settings that say how a command runs, not what it makes: another value is still the same command."""

_LONGEST_PARAM = 500
# Servers before MLflow 2.9 refuse longer values and newer ones cut them at 6000 characters without a word.
_UNSENT = ".mlflow-unsent-{}.jsonl"  # beside the output
_COMMAND = "cxrreport.command"
_LEG = "cxrreport.leg"  # 1, and one more each time that the command goes on
_ERROR = "cxrreport.error"


class Run:
    """What a verb reports to; this base reports nowhere and stands for a run with tracking switched off."""

    run_id = ""
    """MLflow's id of the run; empty when nothing is tracked."""

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers, at `step` where they form a curve. A step that is already there is not logged again."""

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a copy of the file or folder `path`, under `folder` of the run's artifacts."""

    def dataset(self, name: str, digest: str, context: str, **facts: str | int | float) -> None:
        """Record that data of this digest went in (or came out), never the data itself.

        Args:
            name: what it is, e.g. `manifest`.
            digest: fingerprint of the content, hexadecimal.
            context: how it was used: `training`, `inference`, `evaluation`, `output`.
            facts: counts and the like that describe it.
        """

    def tags(self, values: Mapping[str, str]) -> None:
        """Set searchable tags."""

    def link(self, tag: str, made: str, digest: str, *, parent: bool = False) -> None:
        """Point to the latest run that put out data of this digest, where the store has one.

        Args:
            tag: gets the id of that run.
            made: name of what it put out, as given to `dataset` there.
            digest: of the data, whole.
            parent: show this run below that one, too.
        """


class _MlflowRun(Run):
    """A run in an MLflow store: everything goes into a spool, from which a thread sends it."""

    def __init__(self, client: MlflowClient, run: StoredRun, spool: Spool, *, resumed: bool) -> None:
        self.run_id = run.info.run_id
        self._begun = int(run.info.start_time)
        self._client = client
        self._spool = spool
        self._resumed = resumed
        self._sampled = -1
        self._known: dict[str, set[int]] = {}

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        now = int(time.time() * 1000)
        for key, value in values.items():
            name = _clean(key)
            if step is None or not self._already(name, step):
                self._put("metrics", name=name, value=float(value), time=now, step=step or 0)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        self._put("artifact", path=str(path.resolve()), folder=folder)

    def dataset(self, name: str, digest: str, context: str, **facts: str | int | float) -> None:
        self._put("dataset", name=name, digest=digest, context=context, facts=facts)
        # Datasets cannot be searched by digest; tags can, and they take the whole of it.
        self.tags({f"digest.{context}.{name}": digest})

    def tags(self, values: Mapping[str, str]) -> None:
        for key, value in values.items():
            self._put("tags", name=_clean(key), value=value)

    def link(self, tag: str, made: str, digest: str, *, parent: bool = False) -> None:
        # Looked for by the thread that sends: a search in a store that does not answer would hold the work up.
        self._put("link", name=tag, found_by=f"digest.output.{made}", digest=digest, parent=parent)

    def sample(self, values: Mapping[str, float]) -> None:
        """Log the state of the machine; steps are seconds since the run began, so none comes twice after a stop."""
        now = int(time.time() * 1000)
        step = self._sampled = max(self._sampled + 1, (now - self._begun) // 1000)
        for name, value in values.items():
            self._put("metrics", name=f"system/{name}", value=float(value), time=now, step=step)

    def end(self, status: str) -> None:
        """Close the run with `status`, once all is sent; or say where that lies which could not be sent."""
        self._put("status", status=status)
        if not self._spool.close():
            logger.warning(
                "MLflow run %s is not complete: what is missing lies in %s, and is sent by the next run "
                "beside it or by 'cxrreport sync %s'",
                self.run_id,
                self._spool.path,
                self._spool.path.parent,
            )

    def _put(self, kind: str, **values: Any) -> None:
        self._spool.put({"kind": kind, "run_id": self.run_id, **values})

    def _already(self, name: str, step: int) -> bool:
        # A verb that goes on from a checkpoint repeats the steps since; the curve shall hold each of them once.
        if not self._resumed:
            return False
        if name not in self._known:
            self._known[name] = set()
            with suppress(Exception):  # a step twice is better than none
                self._known[name] = {point.step for point in self._client.get_metric_history(self.run_id, name)}
        return step in self._known[name]


def sync(folder: Path, uri: str | None = None) -> int:
    """Send what runs with an output in `folder` could not send; the number of runs.

    Args:
        folder: the folder in which the outputs lie.
        uri: tracking URI of the runs; None as in `TrackingSettings`.

    Raises:
        TrackingError: the store cannot be reached, or what lies here belongs to another one.
    """
    files = sorted(folder.glob(_UNSENT.format("*")))
    if not files:
        return 0
    uri = uri_of(TrackingSettings(uri=uri), folder / "any")
    with mlflow_store.translated(uri):
        send = mlflow_store.sender(mlflow_store.connect(uri), uri)
        return sum(resend(path, send) > 0 for path in files)


@contextmanager
def start(verb: str, settings: Settings, tracking: TrackingSettings, *, output: Path) -> Iterator[Run]:
    """Open the MLflow run of one verb, and close it with the status that the block came to.

    The same command (verb, settings, output) after a stop goes on in the run that it left: curves are continued, not
    begun again. It is found by a tag, so nothing has to be written into the output folder. When the output is not
    there, it is a new beginning and a new run.

    The run holds the settings as parameters (and whole, as `settings.json`), versions and git commit as tags, the state
    of the machine as metrics `system/...`, and at its end `seconds`, `cpu_seconds` and `peak_memory_mb` (of the process
    so far). It ends FINISHED, KILLED by Ctrl-C,
    or FAILED with the error in a tag.

    Args:
        verb: `ingest`, `train`, ...
        settings: the settings of the verb.
        tracking: where to log.
        output: what the verb writes, a folder or a file. Without a URI, `mlflow.db` and `mlartifacts` lie beside it.

    Raises:
        TrackingError: the store cannot be reached or refuses, or the parent run does not exist.
    """
    if not tracking.enabled:
        yield Run()
        return
    begun, resumable = time.monotonic(), output.exists()
    uri = uri_of(tracking, output)
    with mlflow_store.translated(uri):
        client = mlflow_store.connect(uri)
        send = mlflow_store.sender(client, uri)
        _send_leftovers(output.resolve().parent, send)
        experiment = mlflow_store.experiment(client, tracking.experiment, uri)
        command = _command(verb, settings, output)
        stored, resumed = _open(client, experiment, command, resumable)
        try:
            spool = Spool(output.resolve().parent / _UNSENT.format(stored.info.run_id), send)
        except BlockingIOError as error:
            raise OutputError(f"{output}: another process is at work on this very command; wait for it") from error
        spool.put({"kind": "store", "uri": mlflow_store.shown_uri(uri)})
        leg = int(stored.data.tags.get(_LEG, "0")) + 1
        # By what it writes, too: in a list of runs, a verb that was given five times would be five equal names.
        place = output.resolve().name
        name = place if place.startswith(verb) else f"{verb}-{place}"
        own = {"mlflow.runName": name, _COMMAND: command, _LEG: str(leg)}
        _describe(client, stored, verb, settings, tracking.parent_run_id, own)
    run = _MlflowRun(client, stored, spool, resumed=resumed)
    try:
        with _sampled(run, tracking.system_metrics_every):
            yield run
    except (KeyboardInterrupt, SystemExit):
        _end(run, "KILLED", begun, leg)
        raise
    except BaseException as error:
        _end(run, "FAILED", begun, leg, error)
        raise
    _end(run, "FINISHED", begun, leg)


@contextmanager
def _sampled(run: _MlflowRun, every: float | None) -> Iterator[None]:
    """Log processor, memory, disk, network and GPU while the block runs, from a thread, and once at its end."""
    if every is None:
        yield
        return
    sample, ended = mlflow_store.system_monitor(), threading.Event()

    def work() -> None:
        while True:
            stop = ended.wait(every)
            run.sample(sample())
            if stop:
                return

    thread = threading.Thread(target=work, name="system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def store_uri(tracking: TrackingSettings, output: Path) -> str:
    """URI of the store that a verb with this output logs to, without a password that it may hold."""
    return mlflow_store.shown_uri(uri_of(tracking, output))


def flatten(settings: Settings) -> dict[str, str]:
    """Settings as MLflow parameters: nested fields joined by dots, `tracking` left out, everything else complete.

    A value of more than 500 characters, which a store would refuse or cut, is given by its SHA-256; the value itself is
    in the artifact `settings.json`.
    """
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), inner)
            return
        text = value if isinstance(value, str) else json.dumps(value)
        if len(text) > _LONGEST_PARAM:
            text = f"sha256:{hashlib.sha256(text.encode()).hexdigest()} (see settings.json)"
        flat[_clean(prefix)] = text

    walk("", settings.model_dump(mode="json", exclude={"tracking"}))
    return flat


def uri_of(tracking: TrackingSettings, output: Path) -> str:
    """URI of the store that a verb with this output logs to; it may hold a password."""
    beside = output.resolve().parent / "mlflow.db"
    return tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{beside}"


def _command(verb: str, settings: Settings, output: Path) -> str:
    """Fingerprint of what is being done; equal for the same command given again."""
    made = settings.model_dump(mode="json", exclude=set(ELSEWHERE))
    text = json.dumps([verb, made, str(output.resolve())], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _open(client: MlflowClient, experiment: Experiment, command: str, resumable: bool) -> tuple[StoredRun, bool]:
    """The run to log into, and whether it is one that goes on."""
    found = client.search_runs(
        [experiment.experiment_id], f"tags.`{_COMMAND}` = '{command}'", max_results=1, order_by=["start_time DESC"]
    )
    if found and resumable:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0], True
    if found and found[0].info.status == "RUNNING":
        client.set_terminated(found[0].info.run_id, status="KILLED")  # its output is gone: nobody goes on with it
    return client.create_run(experiment.experiment_id), False


def _send_leftovers(folder: Path, send: Send) -> None:
    for path in sorted(folder.glob(_UNSENT.format("*"))):
        try:
            resend(path, send)
        except Exception as error:  # it stays for the next time; this run has nothing to do with it
            logger.warning("%s: what an earlier run could not send still cannot be sent (%s)", path, error)


def _describe(
    client: MlflowClient,
    stored: StoredRun,
    verb: str,
    settings: Settings,
    parent: str | None,
    own: dict[str, str],
) -> None:
    tags = {"cxrreport.verb": verb, "mlflow.source.type": "LOCAL"} | _versions() | _git() | own
    if parent is not None:
        client.get_run(parent)
        tags["mlflow.parentRunId"] = parent
    if _ERROR in stored.data.tags:
        client.delete_tag(stored.info.run_id, _ERROR)
    whole = settings.model_dump_json(indent=2, exclude={"tracking"}) + "\n"
    mlflow_store.describe(client, stored, tags=tags, params=flatten(settings), settings=whole)


def _end(run: _MlflowRun, status: str, begun: float, leg: int, error: BaseException | None = None) -> None:
    if error is not None:
        # Messages of our own tree hold no patient data by rule; others might, so only their type is kept.
        text = f"{type(error).__name__}: {error}" if isinstance(error, CxrReportError) else type(error).__name__
        run.tags({_ERROR: text[:_LONGEST_PARAM]})
    times = os.times()
    run.metrics(
        {
            "seconds": time.monotonic() - begun,
            "cpu_seconds": times.user + times.system,
            "peak_memory_mb": peak_memory_mb(),
        },
        step=leg,
    )
    run.end(status)


def peak_memory_mb() -> float:
    """Largest resident memory of this process since it began, MiB; of a worker process where that was larger."""
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _versions() -> dict[str, str]:
    versions = {"version.python": sys.version.split()[0]}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[f"version.{package}"] = metadata.version(package)
    return versions


def _git() -> dict[str, str]:
    """Commit of the checkout that this package runs from; nothing for an installed wheel."""
    here = Path(cxrreport.__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return {}

    def ask(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here.parent), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {
            "mlflow.source.git.commit": ask("rev-parse", "HEAD"),
            "git.changed": str(bool(ask("status", "--porcelain", "--untracked-files=no", "--", "cxrreport"))).lower(),
        }
    except (OSError, subprocess.SubprocessError):
        return {}


def _clean(name: str) -> str:
    """Keys in MLflow are letters, digits and `_-./: `; everything else becomes `_`."""
    return re.sub(r"[^\w\-./: ]", "_", name)[:250]
