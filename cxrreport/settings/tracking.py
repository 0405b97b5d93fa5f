"""Settings of MLflow runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from cxrreport.settings.base import Settings, expand


def _expand_home(uri: str) -> str:
    """`~/runs` and `sqlite:///~/mlflow.db` with the home folder; other URIs may hold any character."""
    scheme, separator, path = uri.rpartition(":///" if uri.startswith("sqlite") else "file://")
    return f"{scheme}{separator}{expand(Path(path))}" if path.startswith("~") else uri


class TrackingSettings(Settings):
    """Where the run is logged in MLflow."""

    uri: Annotated[str, AfterValidator(_expand_home)] | None = None
    """Tracking URI; a leading `~`, also after `sqlite:///`, is the home folder. `None` for `MLFLOW_TRACKING_URI` or, if
    unset, an SQLite file `mlflow.db` beside the output folder."""
    experiment: str = "cxrreport"
    """Name of the MLflow experiment; created if it does not exist."""
    parent_run_id: str | None = None
    """Id of the parent run."""
    enabled: bool = True
    """False to log nothing."""
    system_metrics_every: Annotated[float, Field(ge=1)] | None = 10.0
    """Seconds between samples of processor, memory, disk, network and GPU (with nvidia-ml-py); `None` for no
    samples."""
    traces: bool = False
    """True to log a trace for each report that `generate` writes: times, tokens, confidence, abstention, notes of the
    image reader. Its text is logged with `log_reports` only."""
    log_reports: bool = False
    """True to log predictions, scores by study, the review page and the text of traces, all of which contain report
    text."""


class CommandSettings(Settings):
    """Settings of a command that writes an output and is logged in MLflow."""

    output: Path
    """Output folder or file."""
    tracking: TrackingSettings = TrackingSettings()
