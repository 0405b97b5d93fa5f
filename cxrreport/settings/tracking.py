"""Settings of the runs in MLflow."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cxrreport.settings.base import Settings


class TrackingSettings(Settings):
    """Where the run is logged in MLflow."""

    uri: str | None = None
    """Tracking URI. None: `MLFLOW_TRACKING_URI`, else an SQLite file `mlflow.db` beside the output folder."""
    experiment: str = "cxrreport"
    """Name of the MLflow experiment; made when it does not exist."""
    parent_run_id: str | None = None
    """Run under which this one is nested."""
    enabled: bool = True
    """False: nothing is logged."""
    system_metrics_every: Annotated[float, Field(ge=1)] | None = 10.0
    """Seconds between samples of processor, memory, disk, network and GPU (with nvidia-ml-py), taken by a thread; None:
    none."""
    log_reports: bool = False
    """True: keep predictions, scores by study and the review page in MLflow too. They hold the text of reports."""
