"""The life of a run: opened or resumed, described by settings and versions, and closed with a status."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from cxrreport.errors import OutputError
from cxrreport.settings import Settings, TrackingSettings
from cxrreport.tracking import mlflow_store
from cxrreport.tracking.environment import git_tags, peak_memory_mb, version_tags
from cxrreport.tracking.run import MlflowRun, Run, clean_name
from cxrreport.tracking.spool import Send, Spool, resend

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from mlflow.entities import Run as StoredRun

logger = logging.getLogger(__name__)

_NOT_IDENTITY = frozenset({"tracking", "workers"})
"""Settings that do not distinguish commands: a command with another value resumes the same run."""
# MLflow servers before 2.9 refuse longer values; newer ones truncate values at 6000 characters without a warning.
_LONGEST_PARAM = 500
_UNSENT = ".mlflow-unsent-{}.jsonl"  # beside the output folder
_COMMAND = "cxrreport.command"
_LEG = "cxrreport.leg"  # 1, increased by one each time that the command is resumed
_ERROR = "cxrreport.error"


def sync(folder: Path, uri: str | None = None) -> int:
    """Send the unsent events of the runs whose outputs are in `folder`, and return the number of these runs.

    Args:
        folder: parent folder of the outputs.
        uri: tracking URI of the runs; `None` for the default of `TrackingSettings`.

    Raises:
        TrackingError: the store cannot be reached, or is not the store of these runs.
    """
    files = sorted(folder.glob(_UNSENT.format("*")))
    if not files:
        return 0
    uri = tracking_uri(TrackingSettings(uri=uri), folder / "any")
    with mlflow_store.translated_errors(uri):
        send = mlflow_store.make_sender(mlflow_store.connect(uri), uri)
        return sum(resend(path, send) > 0 for path in files)


@contextmanager
def start(command: str, settings: Settings, tracking: TrackingSettings, *, output: Path) -> Iterator[Run]:
    """Open the MLflow run of one command, and close it with a status at the end of the block.

    Re-running the same command (name, settings, output) resumes its run and continues the curves. The run is found by a
    tag, so nothing is written to the output folder. If the output does not exist, a new run is created.

    The run holds the settings as parameters (and completely, as `settings.json`), versions and git commit as tags,
    system metrics as `system/...`, and at the end `seconds`, `cpu_seconds` and `peak_memory_mb` of the process. Its
    final status is FINISHED, KILLED (Ctrl-C), or FAILED with the type of the error in a tag.

    Args:
        command: `ingest`, `train`, ...
        settings: the settings of the command.
        tracking: where to log.
        output: folder or file that the command writes. Without a URI, `mlflow.db` and `mlartifacts` are created beside
            it.

    Raises:
        TrackingError: the store cannot be reached or refuses, or the parent run does not exist.
    """
    if not tracking.enabled:
        yield Run()
        return
    started, resumable = time.monotonic(), output.exists()
    uri = tracking_uri(tracking, output)
    with mlflow_store.translated_errors(uri):
        client = mlflow_store.connect(uri)
        send = mlflow_store.make_sender(client, uri)
        _send_leftovers(output.resolve().parent, send)
        experiment = mlflow_store.experiment(client, tracking.experiment, uri)
        identity = _identity(command, settings, output)
        stored, resumed = _open(client, experiment, identity, resumable)
        try:
            spool = Spool(output.resolve().parent / _UNSENT.format(stored.info.run_id), send)
        except Timeout as error:
            raise OutputError(f"{output}: another process is running the same command; wait for it") from error
        spool.put({"kind": "store", "uri": mlflow_store.without_password(uri)})
        leg = int(stored.data.tags.get(_LEG, "0")) + 1
        # With the name of the output: the runs of one command would otherwise all have the same name.
        folder = output.resolve().name
        name = folder if folder.startswith(command) else f"{command}-{folder}"
        tags = {"mlflow.runName": name, "cxrreport.verb": command, _COMMAND: identity, _LEG: str(leg)}
        _describe(client, stored, settings, tracking.parent_run_id, tags)
    run = MlflowRun(client, stored, spool, resumed=resumed)
    try:
        with _system_metrics(run, tracking.system_metrics_every):
            yield run
    except (KeyboardInterrupt, SystemExit):
        _end(run, "KILLED", started, leg)
        raise
    except BaseException as error:
        _end(run, "FAILED", started, leg, error)
        raise
    _end(run, "FINISHED", started, leg)


@contextmanager
def _system_metrics(run: MlflowRun, every: float | None) -> Iterator[None]:
    """Log the use of processor, memory, disk, network and GPU from a thread, and once more at the end of the block."""
    if every is None:
        yield
        return
    sample, ended = mlflow_store.system_monitor(), threading.Event()

    def log_samples() -> None:
        while True:
            stop = ended.wait(every)
            run.sample(sample())
            if stop:
                return

    thread = threading.Thread(target=log_samples, name="system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def settings_to_params(settings: Settings) -> dict[str, str]:
    """Convert settings to MLflow parameters: names of nested fields are joined by dots, and `tracking` is omitted.

    A value of more than 500 characters, which a store would refuse or truncate, is replaced by its SHA-256; the value
    is in the artifact `settings.json`.
    """
    params: dict[str, str] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                add(f"{prefix}.{key}" if prefix else str(key), inner)
            return
        text = value if isinstance(value, str) else json.dumps(value)
        if len(text) > _LONGEST_PARAM:
            text = f"sha256:{hashlib.sha256(text.encode()).hexdigest()} (see settings.json)"
        params[clean_name(prefix)] = text

    add("", settings.model_dump(mode="json", exclude={"tracking"}))
    return params


def tracking_uri(tracking: TrackingSettings, output: Path) -> str:
    """Return the URI of the store for a command with this output; it may contain a password."""
    beside = output.resolve().parent / "mlflow.db"
    return tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or mlflow_store.sqlite_uri(beside)


def _identity(command: str, settings: Settings, output: Path) -> str:
    """Return a hash that is equal when the same command is run again."""
    values = settings.model_dump(mode="json", exclude=set(_NOT_IDENTITY))
    text = json.dumps([command, values, str(output.resolve())], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _open(client: MlflowClient, experiment: Experiment, identity: str, resumable: bool) -> tuple[StoredRun, bool]:
    """Return the run to log to, and whether it is resumed."""
    found = client.search_runs(
        [experiment.experiment_id], f"tags.`{_COMMAND}` = '{identity}'", max_results=1, order_by=["start_time DESC"]
    )
    if found and resumable:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0], True
    if found and found[0].info.status == "RUNNING":
        client.set_terminated(found[0].info.run_id, status="KILLED")  # its output is gone, so it cannot be resumed
    return client.create_run(experiment.experiment_id), False


def _send_leftovers(folder: Path, send: Send) -> None:
    for path in sorted(folder.glob(_UNSENT.format("*"))):
        try:
            resend(path, send)
        except Exception as error:  # the file stays for the next attempt; the current run is not affected
            logger.warning("%s: the unsent events of an earlier run still cannot be sent (%s)", path, error)


def _describe(
    client: MlflowClient,
    stored: StoredRun,
    settings: Settings,
    parent: str | None,
    tags: dict[str, str],
) -> None:
    tags = {"mlflow.source.type": "LOCAL"} | version_tags() | git_tags() | tags
    if parent is not None:
        client.get_run(parent)
        tags["mlflow.parentRunId"] = parent
    if _ERROR in stored.data.tags:
        client.delete_tag(stored.info.run_id, _ERROR)
    complete = settings.model_dump_json(indent=2, exclude={"tracking"}) + "\n"
    mlflow_store.describe(client, stored, tags=tags, params=settings_to_params(settings), settings=complete)


def _end(run: MlflowRun, status: str, started: float, leg: int, error: BaseException | None = None) -> None:
    if error is not None:
        # A message may name a study or a file, which belongs on the terminal of the user only.
        run.tags({_ERROR: type(error).__name__})
    times = os.times()
    run.metrics(
        {
            "seconds": time.monotonic() - started,
            "cpu_seconds": times.user + times.system,
            "peak_memory_mb": peak_memory_mb(),
        },
        step=leg,
    )
    run.end(status)
