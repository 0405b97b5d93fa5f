"""What an MLflow store has of the runs of a test."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities import Run as StoredRun

from cxrreport.settings import IngestSettings, TrackingSettings

ON = TrackingSettings()


def client(settings: IngestSettings) -> MlflowClient:
    return MlflowClient(f"sqlite:///{settings.output.parent / 'mlflow.db'}")


def stored(settings: IngestSettings, run_id: str) -> StoredRun:
    return client(settings).get_run(run_id)


def run_ids(settings: IngestSettings) -> list[str]:
    store = client(settings)
    experiment = store.get_experiment_by_name("cxrreport")
    return [run.info.run_id for run in store.search_runs([experiment.experiment_id])]
