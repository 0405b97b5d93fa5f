"""Telemetry of libraries, turned off.

MLflow, the Hugging Face hub, Ray and OpenVINO report usage unless they are configured not to, and most read environment
variables when they are imported. They are set when this package is imported, before any of these libraries, and child
processes inherit them. Variables that the user has set are unchanged.

OpenVINO and NNCF have no such variable. They report through the optional package `openvino_telemetry`, whose import is
made to fail.
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
"""Environment variables and the values that turn telemetry off."""


def turn_off() -> None:
    """Set every variable of `OFF` that is not set, and prevent the import of `openvino_telemetry`."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
    # peft imports bitsandbytes if it is installed; without a GPU it warns about kernels that it would download.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # makes its import fail
