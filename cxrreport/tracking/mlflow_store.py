"""The door to mlflow: opens a store and hands it what a spool holds. Only `serving` imports mlflow beside it.

Everything goes through `MlflowClient` and the id of a run: there is no global active run, no autologging, no pickle.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrreport import telemetry
from cxrreport.errors import CxrReportError, TrackingError
from cxrreport.storage.atomic_files import PARTIAL, atomic_path
from cxrreport.tracking.spool import Event, RefusedEvent, Send

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from mlflow.entities import Run as StoredRun

_BATCH = 100  # params and tags per request: the limit of the REST API
_DIGEST = 32  # a dataset's digest has at most 36 characters
_FINAL = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"})
"""Answers after which asking again is of no use."""


def connect(uri: str) -> MlflowClient:
    """Open a store, quietly and without telemetry; an SQLite store is made where there is none."""
    telemetry.turn_off()
    # Defaults of MLflow: 7 tries with growing pauses, 120 s each. A verb must not hang on its log book.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "12")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # standard output is the summary's
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store", "mlflow.tracking", "mlflow.pyfunc"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns at every retry; that the store does not answer is said once, by the spool.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
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


def is_new(uri: str) -> bool:
    """True for an SQLite store that is yet to be made."""
    database = _database(uri)
    return database is not None and not database.exists()


def count_experiments(uri: str) -> int:
    """Ask a store for its experiments.

    Raises:
        TrackingError: it does not answer.
    """
    with translated(uri):
        return len(connect(uri).search_experiments())


def experiment(client: MlflowClient, name: str, uri: str) -> Experiment:
    """The experiment of this name, made where there is none.

    Raises:
        TrackingError: it is deleted.
    """
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


def describe(
    client: MlflowClient, stored: StoredRun, *, tags: Mapping[str, str], params: Mapping[str, str], settings: str
) -> None:
    """Set tags, log parameters, and keep `settings` as the artifact `settings.json`."""
    from mlflow.entities import Param, RunTag

    run_id = stored.info.run_id
    # Parameters cannot be changed: those of a run that goes on are there, and only `workers` could differ.
    entries = [Param(name, value) for name, value in params.items() if name not in stored.data.params]
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    for first in range(0, len(entries), _BATCH):
        client.log_batch(run_id, params=entries[first : first + _BATCH])
    client.log_text(run_id, settings, "settings.json")


def sender(client: MlflowClient, uri: str) -> Send:
    """What hands the events of a spool to the store; doing it twice leaves the store as doing it once."""
    from mlflow.exceptions import MlflowException

    shown = shown_uri(uri)

    def send(events: Sequence[Event]) -> None:
        try:
            _send(client, shown, events)
        except FileNotFoundError as error:
            raise RefusedEvent(f"{error.filename} is gone") from error
        except MlflowException as error:
            if error.error_code in _FINAL:
                raise RefusedEvent(f"{error.error_code}: {' '.join(error.message.split())[:200]}") from error
            raise

    return send


def _send(client: MlflowClient, uri: str, events: Sequence[Event]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, RunTag

    kind, run_id = events[0]["kind"], events[0].get("run_id", "")
    if kind == "metrics":
        values = [Metric(event["name"], event["value"], event["time"], event["step"]) for event in events]
        client.log_batch(run_id, metrics=values)
        return
    for event in events:
        if kind == "store":
            if event["uri"] != uri:
                raise TrackingError(f"what is unsent belongs to MLflow at {event['uri']}, and not to {uri}")
        elif kind == "link":
            _link(client, run_id, event)
        elif kind == "tags":
            client.log_batch(run_id, tags=[RunTag(event["name"], event["value"])])
        elif kind == "dataset":
            data = Dataset(
                name=event["name"],
                digest=event["digest"][:_DIGEST],
                source_type="local",
                source=json.dumps({"digest": event["digest"]}),
                profile=json.dumps(event["facts"]),
            )
            entry = DatasetInput(dataset=data, tags=[InputTag("mlflow.data.context", event["context"])])
            client.log_inputs(run_id, datasets=[entry])
        elif kind == "artifact":
            path, folder = Path(event["path"]), event["folder"]
            if path.is_dir():
                client.log_artifacts(run_id, str(path), f"{folder}/{path.name}" if folder else path.name)
            else:
                client.log_artifact(run_id, str(path), folder)
        else:
            client.set_terminated(run_id, status=event["status"])


def _link(client: MlflowClient, run_id: str, event: Event) -> None:
    """Tag the run with the id of the one that the event looks for, in whatever experiment that is."""
    from mlflow.entities import RunTag

    experiments = [each.experiment_id for each in client.search_experiments()]
    wanted = f"tags.`{event['found_by']}` = '{event['digest']}'"
    for maker in client.search_runs(experiments, wanted, max_results=1, order_by=["start_time DESC"]):
        names = [event["name"]] + (["mlflow.parentRunId"] if event["parent"] else [])
        client.log_batch(run_id, tags=[RunTag(name, maker.info.run_id) for name in names])


def system_monitor() -> Callable[[], dict[str, float]]:
    """What MLflow's own monitors say of processor, memory, disk, network and, with nvidia-ml-py, GPU, at every call."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor]  # Any: without annotations
    monitors = []
    for kind in kinds:
        with suppress(ImportError, RuntimeError):  # no GPU, or no nvidia-ml-py: `cxrreport doctor` says it
            monitors.append(kind())

    def sample() -> dict[str, float]:
        values: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return values

    return sample


def register(uri: str, run_id: str, folder: Path, name: str, aliases: Sequence[str], tags: Mapping[str, str]) -> str:
    """Keep a packed model in a run and make it the next version of a registered model; the version's number.

    Unlike what a spool sends this waits for the store: a version without its files would be of no use.

    Raises:
        TrackingError: the store cannot be reached or refuses.
    """
    from mlflow.exceptions import MlflowException

    with translated(uri):
        client = connect(uri)
        client.log_artifacts(run_id, str(folder), folder.name)
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{client.get_run(run_id).info.artifact_uri}/{folder.name}"
        version = client.create_model_version(name, source, run_id, tags=dict(tags)).version
        for alias in aliases:
            client.set_registered_model_alias(name, alias, version)
    return str(version)


def shown_uri(uri: str) -> str:
    """The URI without a password that it may hold, for messages and files."""
    return re.sub(r"//[^/@]*@", "//", uri)


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Whatever goes wrong with the store in the block becomes a `TrackingError`."""
    try:
        yield
    except CxrReportError:
        raise
    except Exception as error:
        first = shown_uri(" ".join(str(error).split()))[:300]
        raise TrackingError(
            f"MLflow at {shown_uri(uri)} cannot be used: {first}. Check tracking.uri or MLFLOW_TRACKING_URI, or switch "
            "tracking off (tracking.enabled: false, --no-track)"
        ) from error
