"""Processes that this package starts import what it imports, whatever lies in the working folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cxrreport.child_processes import module_command, module_environment

COMMAND = """
import math
from contextlib import suppress
from cxrreport.cli import app
from cxrreport.ingestion.workers import in_own_process
if __name__ == "__main__":
    with suppress(SystemExit):
        app(["--version"])
    print(in_own_process(math.sqrt, 9.0))
"""


def working_folder(folder: Path) -> Path:
    """A folder whose files have names of modules of Python, as `types.py` or `random.py`."""
    folder.mkdir()
    for name in ("types", "random", "queue", "json", "numpy", "pydicom"):
        (folder / f"{name}.py").write_text("raise ImportError('of the working folder')")
    return folder


def test_a_module_is_not_looked_for_in_the_working_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        module_command("cxrreport", "--version"),
        cwd=working_folder(tmp_path / "here"),
        env=module_environment({}),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    assert done.stdout.startswith("cxrreport ")


def test_nor_are_those_of_worker_processes_of_a_command(tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text(COMMAND)
    done = subprocess.run(
        [sys.executable, tmp_path / "command.py"],
        cwd=working_folder(tmp_path / "here"),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "3.0"
