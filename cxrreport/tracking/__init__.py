"""One MLflow run per command: events are spooled to disk and sent by a thread, or later."""

from cxrreport.tracking.background import BackgroundTracer
from cxrreport.tracking.environment import PACKAGES, peak_memory_mb
from cxrreport.tracking.lifecycle import settings_to_params, start, sync, tracking_uri
from cxrreport.tracking.mlflow_store import (
    count_experiments,
    is_new,
    log_feedback,
    register_model,
    sqlite_uri,
    tags_of_alias,
    without_password,
)
from cxrreport.tracking.run import Run
from cxrreport.tracking.traces import ReportTrace
