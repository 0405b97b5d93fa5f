"""A small finished demo, whose inputs and outputs the attacked commands use, and the table of figures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from small_demo import run_small_demo

from cxrreport.tracking import mlflow_store

FIGURES = "CXRREPORT_ATTACK_FIGURES"
"""Environment variable: a file to which the figures of the tests are appended, one JSON object a line."""


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    run_small_demo(folder)
    mlflow_store.connect(mlflow_store.sqlite_uri(folder.parent / "empty.db"))
    return folder


@pytest.fixture
def own_temporary_folder(tmp_path: Path) -> Path:
    """Shows what the commands of a test write into the temporary folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Any:
    """Append figures to the file that `FIGURES` names."""

    def append(**values: Any) -> None:
        if FIGURES in os.environ:
            with Path(os.environ[FIGURES]).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"test": request.node.name, **values}) + "\n")

    return append
