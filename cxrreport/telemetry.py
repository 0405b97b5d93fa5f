"""No library of ours phones home.

MLflow, the Hugging Face hub, Ray and OpenVINO report usage to their makers unless they are told not to, and most read
that wish from the environment when they are imported. So it is set when this package is imported, before any of them,
and child processes inherit it. Whoever has set a variable already keeps it.

OpenVINO and NNCF have no such variable: they report through a package of its own, `openvino_telemetry`, and go without
where it is not installed. To them it is not.
"""

from __future__ import annotations

import logging
import os
import sys

OFF = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variable to the value that turns its library's telemetry off."""


def turn_off() -> None:
    """Set every variable of `OFF` that is not set yet, and let no one import OpenVINO's reporter."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
    # peft imports it where it is installed; without a GPU it warns of kernels that it would fetch from a hub.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # an import of it now fails
