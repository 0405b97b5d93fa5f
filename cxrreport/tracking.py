"""One verb, one MLflow run.

The only importer of mlflow, and only when a run is opened. Everything goes through `MlflowClient` and the run's id:
there is no global active run, no autologging and no pickle, so two verbs never write into each other's run.

What MLflow gets: settings, counts, scores, digests, versions, and the files that a verb hands over. Never a patient tag
or the text of a report.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrreport import telemetry
from cxrreport.errors import CxrReportError, OutputError, TrackingError
from cxrreport.files import PARTIAL, atomic_path
from cxrreport.settings import Settings, TrackingSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric
    from mlflow.entities import Run as StoredRun

logger = logging.getLogger(__name__)

PACKAGES = ("cxrreport", "torch", "transformers", "peft", "radgraph", "pydicom", "monai", "numpy", "mlflow")
"""Distributions whose versions become tags."""
ELSEWHERE = frozenset({"tracking", "workers"})
"""Settings that say how a command runs, not what it makes: another value is still the same command."""

_LONGEST_PARAM = 500
# Servers before MLflow 2.9 refuse longer values and newer ones cut them at 6000 characters without a word.
_BATCH = 100  # params and tags per request: the limit of the REST API
_METRICS = 500  # metrics per request; the limit is 1000 entities
_FLUSH_SECONDS = 5.0
_DIGEST = 32  # a dataset's digest has at most 36 characters
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


class _MlflowRun(Run):
    """A run in an MLflow store.

    Metrics are gathered and sent in batches. A store that stops answering in mid-run does not stop the verb: what was
    not taken is offered again with the next batch, and at the end a warning says what is missing.
    """

    def __init__(self, client: MlflowClient, run: StoredRun, *, resumed: bool) -> None:
        self.run_id = run.info.run_id
        self._client = client
        self._pending: list[Metric] = []
        self._sent = time.monotonic()
        self._resumed = resumed
        self._known: dict[str, set[int]] = {}
        self._unsent: list[str] = []

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for key, value in values.items():
            name = _clean(key)
            if step is not None and self._already(name, step):
                continue
            self._pending.append(Metric(name, float(value), now, step or 0))
        if len(self._pending) >= _METRICS or time.monotonic() - self._sent > _FLUSH_SECONDS:
            self.flush()

    def artifact(self, path: Path, folder: str | None = None) -> None:
        send = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        if path.is_dir():
            folder = f"{folder}/{path.name}" if folder else path.name
        self._try(f"artifact {path.name}", lambda: send(self.run_id, str(path), folder))

    def dataset(self, name: str, digest: str, context: str, **facts: str | int | float) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = Dataset(
            name=name,
            digest=digest[:_DIGEST],
            source_type="local",
            source=json.dumps({"digest": digest}),
            profile=json.dumps(facts) if facts else None,
        )
        entry = DatasetInput(dataset=data, tags=[InputTag("mlflow.data.context", context)])
        self._try(f"dataset {name}", lambda: self._client.log_inputs(self.run_id, datasets=[entry]))
        # Datasets cannot be searched by digest; tags can, and they take the whole of it.
        self.tags({f"digest.{context}.{name}": digest})

    def tags(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entries = [RunTag(_clean(key), value) for key, value in values.items()]
        self._try("tags", lambda: self._client.log_batch(self.run_id, tags=entries))

    def flush(self) -> None:
        """Send the metrics that wait; those that the store does not take go on waiting."""
        self._sent = time.monotonic()
        while self._pending:
            batch = self._pending[:_METRICS]
            try:
                self._client.log_batch(self.run_id, metrics=batch)
            except Exception as error:
                self._warn("metrics", error)
                return
            del self._pending[: len(batch)]

    def end(self, status: str) -> None:
        """Send what waits and close the run with `status`."""
        self.flush()
        if self._pending:
            self._unsent.append(f"{len(self._pending)} metrics")
        self._try("status", lambda: self._client.set_terminated(self.run_id, status=status))
        if self._unsent:
            logger.warning("MLflow did not take: %s (run %s)", ", ".join(self._unsent), self.run_id)

    def leave(self, status: str) -> None:
        """Put back the status that the run had before this process took it up."""
        self._try("status", lambda: self._client.update_run(self.run_id, status=status))

    def _already(self, name: str, step: int) -> bool:
        # A verb that goes on from a checkpoint repeats the steps since; the curve shall hold each of them once.
        if not self._resumed:
            return False
        if name not in self._known:
            self._known[name] = set()
            with suppress(Exception):
                self._known[name] = {point.step for point in self._client.get_metric_history(self.run_id, name)}
        return step in self._known[name]

    def _try(self, what: str, send: Any) -> None:
        try:
            send()
        except Exception as error:
            self._unsent.append(what)
            self._warn(what, error)

    def _warn(self, what: str, error: Exception) -> None:
        logger.warning("MLflow does not take %s (%s); the work goes on", what, type(error).__name__)


@contextmanager
def start(verb: str, settings: Settings, tracking: TrackingSettings, *, output: Path) -> Iterator[Run]:
    """Open the MLflow run of one verb, and close it with the status that the block came to.

    The same command (verb, settings, output) after a stop goes on in the run that it left: curves are continued, not
    begun again. It is found by a tag, so nothing has to be written into the output folder. When the output is not
    there, it is a new beginning and a new run.

    The run holds the settings as parameters (and whole, as `settings.json`), versions and git commit as tags, and at
    its end `seconds`, `cpu_seconds` and `peak_memory_mb` (of the process so far). It ends FINISHED, KILLED by Ctrl-C,
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
    uri = _uri(tracking, output)
    with _translated(uri):
        client = _client(uri)
        experiment = _experiment(client, tracking.experiment, uri)
        command = _command(verb, settings, output)
        stored, before = _open(client, experiment, command, resumable)
        run = _MlflowRun(client, stored, resumed=before is not None)
        leg = int(stored.data.tags.get(_LEG, "0")) + 1
        _describe(client, stored, verb, settings, tracking, {_COMMAND: command, _LEG: str(leg)})
    try:
        yield run
    except (KeyboardInterrupt, SystemExit):
        _end(run, "KILLED", begun, leg)
        raise
    except BaseException as error:
        if before is not None and isinstance(error, OutputError) and isinstance(error.__cause__, BlockingIOError):
            run.leave(before)  # another process works in this folder, on this very run: it stays as it was found
        else:
            _end(run, "FAILED", begun, leg, error)
        raise
    _end(run, "FINISHED", begun, leg)


def store_uri(tracking: TrackingSettings, output: Path) -> str:
    """URI of the store that a verb with this output logs to, without a password that it may hold."""
    return _shown(_uri(tracking, output))


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


def _uri(tracking: TrackingSettings, output: Path) -> str:
    beside = output.resolve().parent / "mlflow.db"
    return tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{beside}"


def _client(uri: str) -> MlflowClient:
    telemetry.turn_off()
    # Defaults of MLflow: 7 tries with growing pauses, 120 s each. A verb must not hang on its log book.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # standard output is the summary's
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    database = _database(uri)
    if database is not None:
        _make(database)
    return MlflowClient(tracking_uri=uri)


def _database(uri: str) -> Path | None:
    """File of an SQLite store; None for another kind of store."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]).resolve()


def _make(database: Path) -> None:
    """Make an empty store where there is none. MLflow cannot open one again whose making was stopped half-way."""
    from mlflow import MlflowClient

    database.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(database.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # of two processes that begin together, one makes it
        if not database.exists():
            for leftover in database.parent.glob(f"{PARTIAL}*-{database.name}*"):
                leftover.unlink()
            with atomic_path(database) as temporary:
                MlflowClient(tracking_uri=f"sqlite:///{temporary}").search_experiments(max_results=1)
    finally:
        os.close(folder)


def _experiment(client: MlflowClient, name: str, uri: str) -> Experiment:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # MLflow's own default for SQLite is `mlruns` in the working folder: it must lie beside the database instead.
        database = _database(uri)
        location = (database.parent / "mlartifacts").as_uri() if database is not None else None
        try:
            return client.get_experiment(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process was quicker
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise TrackingError(f"MLflow experiment {name!r} is deleted: restore it or name another (tracking.experiment)")
    return found


def _command(verb: str, settings: Settings, output: Path) -> str:
    """Fingerprint of what is being done; equal for the same command given again."""
    made = settings.model_dump(mode="json", exclude=set(ELSEWHERE))
    text = json.dumps([verb, made, str(output.resolve())], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _open(client: MlflowClient, experiment: Experiment, command: str, resumable: bool) -> tuple[StoredRun, str | None]:
    """The run to log into, and the status it had when it is one that goes on."""
    found = client.search_runs(
        [experiment.experiment_id], f"tags.`{_COMMAND}` = '{command}'", max_results=1, order_by=["start_time DESC"]
    )
    if found and resumable:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0], str(found[0].info.status)
    if found and found[0].info.status == "RUNNING":
        client.set_terminated(found[0].info.run_id, status="KILLED")  # its output is gone: nobody goes on with it
    return client.create_run(experiment.experiment_id), None


def _describe(
    client: MlflowClient,
    stored: StoredRun,
    verb: str,
    settings: Settings,
    tracking: TrackingSettings,
    own: dict[str, str],
) -> None:
    from mlflow.entities import Param, RunTag

    tags = {"mlflow.runName": verb, "cxrreport.verb": verb, "mlflow.source.type": "LOCAL"} | _versions() | _git() | own
    if tracking.parent_run_id is not None:
        client.get_run(tracking.parent_run_id)
        tags["mlflow.parentRunId"] = tracking.parent_run_id
    # Parameters cannot be changed: those of a run that goes on are there, and only `workers` could differ.
    params = [Param(key, value) for key, value in flatten(settings).items() if key not in stored.data.params]
    run_id = stored.info.run_id
    if _ERROR in stored.data.tags:
        client.delete_tag(run_id, _ERROR)
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    for first in range(0, len(params), _BATCH):
        client.log_batch(run_id, params=params[first : first + _BATCH])
    client.log_text(run_id, settings.model_dump_json(indent=2, exclude={"tracking"}) + "\n", "settings.json")


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
    here = Path(__file__).resolve().parent
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


def _shown(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)  # a password in a URI stays out of messages


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    try:
        yield
    except CxrReportError:
        raise
    except Exception as error:
        first = _shown(" ".join(str(error).split()))[:300]
        raise TrackingError(
            f"MLflow at {_shown(uri)} cannot be used: {first}. Check tracking.uri or MLFLOW_TRACKING_URI, or switch it "
            "off with tracking.enabled: false"
        ) from error
