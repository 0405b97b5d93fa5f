"""Starting is quick: no large library is imported before a command needs it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "monai", "mlflow", "peft", "radgraph", "matplotlib", "scipy", "pyarrow", "pydicom"}


def loaded_by(statement: str) -> set[str]:
    script = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import cxrreport",
        "import cxrreport.runs",
        "import cxrreport.cli",
        "import cxrreport.evaluation.metrics",
        "import cxrreport.evaluation.statistics",
        "import cxrreport.tracking",
        "from typer.testing import CliRunner; from cxrreport.cli import app; CliRunner().invoke(app, ['--help'])",
    ],
)
def test_nothing_heavy_is_loaded(statement: str) -> None:
    loaded = loaded_by(statement)
    assert "cxrreport" in loaded
    assert not loaded & HEAVY


def test_telemetry_is_off_before_anything_could_send_some() -> None:
    names = "MLFLOW_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"
    script = f"import cxrreport, os; print(*(os.environ[name] for name in {names}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={})
    assert done.stdout.split() == ["true", "1"]


def test_variables_of_the_user_are_unchanged() -> None:
    script = "import cxrreport, os; print(os.environ['DO_NOT_TRACK'])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"DO_NOT_TRACK": "0"}
    )
    assert done.stdout.strip() == "0"


@pytest.mark.parametrize(("given", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_waiting_threads_sleep_before_torch_is_there(given: dict[str, str], expected: str) -> None:
    code = "import sys, os, cxrreport; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "False"]
