"""Start modules of this package in processes of their own, which import what this process would.

`python -m` looks for modules in the working folder first. There, a folder of the name `dl`, which GDCM looks for, or a
file of the name `queue.py` would take the place of a module of Python.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def module_command(module: str, *arguments: str) -> list[str]:
    """The command of a process that runs a module; `module_environment` says where it finds it."""
    return [sys.executable, "-P", "-m", module, *arguments]


def module_environment(values: dict[str, str]) -> dict[str, str]:
    """The environment of such a process: that of this one, its import path, and `values`."""
    path = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)  # the empty one is the working folder
    return os.environ | {"PYTHONPATH": path} | values
