"""Events of a run that become tables, child runs, data, traces, models, their scores; sent twice, they do no harm."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrreport.tracking import traces

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric
    from mlflow.entities import Run as StoredRun

    from cxrreport.tracking.spool import Event

KINDS = frozenset({"table", "child", "data", "model", "model_scores", "trace"})
_DIGEST_TAG = "cxrreport.digest"
_CHILD_TAG = "cxrreport.system"
_TABLES_TAG = "mlflow.loggedArtifacts"  # MLflow shows the artifacts that it lists as tables
_NAME_DIGITS = 12  # of the digest, in the name of data
_DIGEST = 32  # MLflow allows at most 36 characters in the digest of a dataset


def send(client: MlflowClient, run_id: str, events: Sequence[Event]) -> None:
    """Send events of one of `KINDS`."""
    kind = events[0]["kind"]
    if kind == "model_scores":
        for event in events:
            _send_scores(client, run_id, event)
        return
    run = client.get_run(run_id)
    if kind == "table":
        _send_tables(client, run, events)
        return
    for event in events:
        _SENDERS[kind](client, run, event)


def _send_scores(client: MlflowClient, run_id: str, event: Event) -> None:
    data = {"dataset_name": "references", "dataset_digest": event["data"][:_DIGEST]}
    for model in _models(client, event["digest"]):
        logged = {(metric.key, metric.run_id) for metric in model.metrics or []}
        new = {name: value for name, value in event["values"].items() if (name, run_id) not in logged}
        client.log_batch(run_id, metrics=_metrics(new, model_id=model.model_id, **data))


def _send_tables(client: MlflowClient, run: StoredRun, events: Sequence[Event]) -> None:
    listed = json.loads(run.data.tags.get(_TABLES_TAG, "[]"))
    for event in events:
        content = json.dumps({"columns": event["columns"], "data": event["rows"]})
        client.log_text(run.info.run_id, content, event["name"])
    new = [{"path": event["name"], "type": "table"} for event in events]
    client.set_tag(run.info.run_id, _TABLES_TAG, json.dumps([one for one in listed if one not in new] + new))


def _send_child(client: MlflowClient, run: StoredRun, event: Event) -> None:
    tags = {"mlflow.parentRunId": run.info.run_id, _CHILD_TAG: event["name"]}
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found = client.search_runs([run.info.experiment_id], query, max_results=1)
    if found and found[0].info.status == "FINISHED":
        return
    child = found[0] if found else client.create_run(run.info.experiment_id, tags=tags, run_name=event["name"])
    new = {name: value for name, value in event["values"].items() if name not in child.data.metrics}
    client.log_batch(child.info.run_id, metrics=_metrics(new))
    client.set_terminated(child.info.run_id)


def _send_data(client: MlflowClient, run: StoredRun, event: Event) -> None:
    from mlflow.exceptions import MlflowException

    experiment_id, name = run.info.experiment_id, f"{event['name']}-{event['digest'][:_NAME_DIGITS]}"
    try:
        if not client.search_datasets(experiment_ids=[experiment_id], filter_string=f"name = '{name}'"):
            client.create_dataset(name, experiment_id=experiment_id, tags={"digest": event["digest"], **event["facts"]})
    except MlflowException as error:
        if error.error_code != "FEATURE_DISABLED":  # a store of files has none
            raise


def _send_trace(client: MlflowClient, run: StoredRun, event: Event) -> None:
    traces.send(client, run.info.experiment_id, event, run_id=run.info.run_id)


def _send_model(client: MlflowClient, run: StoredRun, event: Event) -> None:
    from mlflow.entities import LoggedModelOutput

    known = [model for model in _models(client, event["digest"]) if model.source_run_id == run.info.run_id]
    if not known:
        model = client.create_logged_model(
            run.info.experiment_id,
            name=event["name"],
            source_run_id=run.info.run_id,
            tags={_DIGEST_TAG: event["digest"]},
            params=event["params"],
            model_type="adapter",
        )
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, 0)])
        known = [model]
    if str(known[0].status) != "READY":
        if event["path"] is not None and Path(event["path"]).is_dir():
            client.log_model_artifacts(known[0].model_id, event["path"])
        client.finalize_logged_model(known[0].model_id, "READY")


def _models(client: MlflowClient, digest: str) -> list[LoggedModel]:
    experiments = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_logged_models(experiments, f"tags.`{_DIGEST_TAG}` = '{digest}'"))


def _metrics(values: dict[str, float], **where: Any) -> list[Metric]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(name, value, now, 0, **where) for name, value in values.items()]


_SENDERS = {"child": _send_child, "data": _send_data, "model": _send_model, "trace": _send_trace}
