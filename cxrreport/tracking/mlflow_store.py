"""Access to MLflow stores. Only this module and `serving` import mlflow.

Everything uses `MlflowClient` and the id of a run: no global active run, no autologging, no pickle.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrreport import telemetry
from cxrreport.errors import CxrReportError, TrackingError
from cxrreport.storage.atomic_files import atomic_path, remove_partial
from cxrreport.storage.locks import locked_file
from cxrreport.tracking import logged_models, traces
from cxrreport.tracking.spool import Event, RefusedEvent, Send

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from mlflow.entities import Run as StoredRun

_BATCH = 100  # params and tags per request: the limit of the REST API
_DIGEST = 32  # MLflow allows at most 36 characters
_OTHER_STORE = "Check tracking.uri or MLFLOW_TRACKING_URI, or disable tracking (tracking.enabled: false, --no-track)"
_EXPERIMENT = {
    "mlflow.experimentKind": "custom_model_development",  # otherwise it opens as one of traces
    "mlflow.note.content": "Chest X-ray report generation with cxrreport: ingest, train, generate, evaluate. The "
    "models are the adapters; runs of baselines are below those of evaluations.",
}
_FINAL = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE"})
"""Error codes for which a retry is useless."""


def connect(uri: str) -> MlflowClient:
    """Open a store without output and telemetry; an SQLite store is created if necessary."""
    telemetry.turn_off()
    # By default MLflow tries 7 times for 120 s each, with increasing pauses, and would block the command.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "12")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # standard output holds the summary
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store", "mlflow.tracking", "mlflow.pyfunc"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It logs every failure with its stack; the spool warns once.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # urllib3 warns at every retry; the spool warns once that the store does not respond.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    database = _database(uri)
    if database is not None:
        try:
            _create(database)
        except OSError as error:
            raise TrackingError(
                f"{database}: the MLflow database cannot be created ({error.strerror}). {_OTHER_STORE}"
            ) from error
        _check_writable(database)
    return MlflowClient(tracking_uri=uri)


def _database(uri: str) -> Path | None:
    """Return the file of an SQLite store, `None` for other stores."""
    from sqlalchemy import make_url

    if not uri.startswith("sqlite"):
        return None
    name = make_url(uri).database
    return None if name in (None, "", ":memory:") else Path(name).resolve()


def sqlite_uri(database: Path) -> str:
    """The URI of an SQLite store; characters with a meaning in URIs are escaped."""
    from sqlalchemy import URL

    name = str(database.resolve())
    plain = URL.create("sqlite", database=name).render_as_string()
    if plain.endswith(name):
        return plain
    # MLflow creates the parent of what follows `sqlite:///`, without decoding it; with a driver it does not.
    return URL.create("sqlite+pysqlite", database=name).render_as_string()


def _check_writable(database: Path) -> None:
    """MLflow would try for minutes to open a database that it cannot open.

    Raises:
        TrackingError: the database cannot be read and written.
    """
    reason = ""
    if not os.access(database.parent, os.W_OK | os.X_OK):  # SQLite writes its journal there
        reason = "its folder is not writable"
    elif not os.access(database, os.R_OK | os.W_OK):
        reason = "it is not readable and writable"
    else:
        try:
            with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=0)) as connection:
                connection.execute("PRAGMA schema_version")
        except sqlite3.Error as error:
            if error.sqlite_errorname != "SQLITE_BUSY":  # another process writes
                reason = str(error)
    if reason:
        raise TrackingError(f"{database}: the MLflow database cannot be used: {reason}. {_OTHER_STORE}")


def _create(database: Path) -> None:
    """Create an empty store atomically: MLflow cannot open a store whose creation was interrupted."""
    from mlflow import MlflowClient

    if database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    lock = database.with_name(f".{database.name}.lock")
    with locked_file(lock, wait=True):  # only one of several processes creates the store
        if not database.exists():
            remove_partial(database)
            with atomic_path(database) as temporary:
                MlflowClient(tracking_uri=sqlite_uri(temporary)).search_experiments(max_results=1)
        lock.unlink(missing_ok=True)


def is_new(uri: str) -> bool:
    """Return whether this is an SQLite store that does not exist yet."""
    database = _database(uri)
    return database is not None and not database.exists()


def count_experiments(uri: str) -> int:
    """Return the number of experiments in a store.

    Raises:
        TrackingError: the store does not respond.
    """
    with translated_errors(uri):
        return len(connect(uri).search_experiments())


def experiment(client: MlflowClient, name: str, uri: str) -> Experiment:
    """Return the experiment of this name, which is created if necessary.

    Raises:
        TrackingError: it is deleted.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # MLflow's default for SQLite is `mlruns` in the working directory instead of beside the database.
        database = _database(uri)
        location = (database.parent / "mlartifacts").as_uri() if database is not None else None
        try:
            created = client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT)
            return client.get_experiment(created)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process created it first
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"MLflow experiment {name!r} is deleted: restore it or choose another (tracking.experiment)"
        )
    return found


def describe(
    client: MlflowClient, stored: StoredRun, *, tags: Mapping[str, str], params: Mapping[str, str], settings: str
) -> None:
    """Set tags, log parameters, and log `settings` as the artifact `settings.json`."""
    from mlflow.entities import Param, RunTag

    run_id = stored.info.run_id
    # Parameters cannot be changed: a resumed run has them already, and only `workers` could differ.
    entries = [Param(name, value) for name, value in params.items() if name not in stored.data.params]
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    for first in range(0, len(entries), _BATCH):
        client.log_batch(run_id, params=entries[first : first + _BATCH])
    client.log_text(run_id, settings, "settings.json")


def make_sender(client: MlflowClient, uri: str) -> Send:
    """Return the function that sends the events of a spool to the store; sending an event twice is harmless."""
    from mlflow.exceptions import MlflowException

    public_uri = without_password(uri)

    def send(events: Sequence[Event]) -> None:
        try:
            _send(client, public_uri, events)
        except FileNotFoundError as error:
            raise RefusedEvent(f"{error.filename} no longer exists") from error
        except MlflowException as error:
            if error.error_code in _FINAL:
                raise RefusedEvent(f"{error.error_code}: {' '.join(error.message.split())[:200]}") from error
            raise TrackingError(_reason(error)) from error
        except KeyError as error:  # a line of the file that another program has changed
            if len(events) == 1:
                raise RefusedEvent(f"it lacks {error}") from error
            refused = 0
            for event in events:
                try:
                    send([event])
                except RefusedEvent:
                    refused += 1
            if refused:
                raise RefusedEvent(f"{refused} of {len(events)} lack a field") from error

    return send


def _send(client: MlflowClient, uri: str, events: Sequence[Event]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, RunTag

    kind, run_id = events[0]["kind"], events[0].get("run_id", "")
    if kind == "metrics":
        values = [Metric(event["name"], event["value"], event["time"], event["step"]) for event in events]
        client.log_batch(run_id, metrics=values)
        return
    if kind in logged_models.KINDS:
        logged_models.send(client, run_id, events)
        return
    for event in events:
        if kind == "store":
            if event["uri"] != uri:
                raise TrackingError(f"the unsent events belong to MLflow at {event['uri']}, not to {uri}")
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
        elif kind == "text":
            client.log_text(run_id, event["content"], event["name"])
        elif kind == "artifact":
            path, folder = Path(event["path"]), event["folder"]
            if path.is_dir():
                client.log_artifacts(run_id, str(path), f"{folder}/{path.name}" if folder else path.name)
            else:
                client.log_artifact(run_id, str(path), folder)
        else:
            client.set_terminated(run_id, status=event["status"])


def _link(client: MlflowClient, run_id: str, event: Event) -> None:
    """Tag the run with the id of the run that the event searches for, in any experiment, and log values in that one."""
    from mlflow.entities import Metric, RunTag

    experiments = [each.experiment_id for each in client.search_experiments()]
    query = f"tags.`{event['found_by']}` = '{event['digest']}'"
    for found in client.search_runs(experiments, query, max_results=1, order_by=["start_time DESC"]):
        names = [event["name"]] + (["mlflow.parentRunId"] if event["parent"] else [])
        client.log_batch(run_id, tags=[RunTag(name, found.info.run_id) for name in names])
        values = [Metric(name, value, event["time"], 0) for name, value in event.get("values", {}).items()]
        client.log_batch(found.info.run_id, metrics=values)


def system_monitor() -> Callable[[], dict[str, float]]:
    """Return a function that samples MLflow's monitors of processor, memory, disk, network and (nvidia-ml-py) GPU."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor]  # Any: they have no annotations
    monitors = []
    for kind in kinds:
        with suppress(ImportError, RuntimeError):  # no GPU, or no nvidia-ml-py, which `cxrreport doctor` reports
            monitors.append(kind())

    def sample() -> dict[str, float]:
        values: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return values

    return sample


def log_feedback(uri: str, said: Sequence[tuple[str, str, Mapping[str, str | float]]]) -> int:
    """Attach what readers say to traces: id of the trace, reader, values by name; returns the number of new values.

    Raises:
        TrackingError: the store cannot be reached, or does not have a trace.
    """
    with translated_errors(uri):
        client = connect(uri)
        return sum(traces.log_feedback(client, *one) for one in said)


def tags_of_alias(uri: str, name: str, alias: str) -> Mapping[str, str] | None:
    """The tags of the version of a registered model that has an alias; `None` if there is none.

    Raises:
        TrackingError: the store cannot be reached.
    """
    from mlflow.exceptions import MlflowException

    with translated_errors(uri):
        try:
            tags: Mapping[str, str] = connect(uri).get_model_version_by_alias(name, alias).tags
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None
    return tags


def register_model(
    uri: str,
    run_id: str,
    folder: Path,
    name: str,
    aliases: Sequence[str],
    tags: Mapping[str, str],
    description: str,
) -> str:
    """Log a packed model as an artifact and register it as the next version of `name`; return the version.

    This waits for the store, because a version without its files is useless.

    Raises:
        TrackingError: the store cannot be reached or refuses.
    """
    from mlflow.exceptions import MlflowException

    with translated_errors(uri):
        client = connect(uri)
        client.log_artifacts(run_id, str(folder), folder.name)
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{client.get_run(run_id).info.artifact_uri}/{folder.name}"
        version = client.create_model_version(name, source, run_id, tags=dict(tags), description=description).version
        for alias in aliases:
            client.set_registered_model_alias(name, alias, version)
    return str(version)


def without_password(uri: str) -> str:
    """Return a URI without user and password, for messages and files."""
    return re.sub(r"(?<!/)//[^/@]*@", "//", uri)


def _reason(error: BaseException) -> str:
    """The message of an error, without the statement and the link that SQLAlchemy adds to that of the database."""
    cause: BaseException | None = error
    while cause is not None:
        if database := getattr(cause, "orig", None):
            return str(database)
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split())[:300]


@contextmanager
def translated_errors(uri: str) -> Iterator[None]:
    """Turn every error in the block that is not one of ours into a `TrackingError`."""
    try:
        yield
    except CxrReportError:
        raise
    except Exception as error:
        reason = without_password(_reason(error))
        raise TrackingError(f"MLflow at {without_password(uri)} cannot be used: {reason}. {_OTHER_STORE}") from error
