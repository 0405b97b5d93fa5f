"""Stores of the tests of tracking: SQLite files, one of which was interrupted while it was created."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cxrreport import tracking
from cxrreport.settings import IngestSettings


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a process that was killed while it created the store."""
    script = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from cxrreport.tracking import count_experiments
tables = []
@event.listens_for(Engine, "before_cursor_execute")
def _(connection, cursor, statement, *rest):
    tables.append(statement)
    if sum("CREATE TABLE" in each for each in tables) == 12:
        os.kill(os.getpid(), signal.SIGKILL)
count_experiments(sys.argv[1])
"""
    folder = tmp_path_factory.mktemp("store")
    killed = subprocess.run([sys.executable, "-c", script, f"sqlite:///{folder / 'mlflow.db'}"], check=False)
    assert killed.returncode == -9
    assert list(folder.iterdir()) != []
    return folder


@pytest.fixture(scope="session")
def empty_store(interrupted: Path) -> Path:
    """A database with its tables and nothing in them, shared because its creation takes seconds."""
    path = interrupted / "mlflow.db"
    tracking.count_experiments(f"sqlite:///{path}")
    return path


@pytest.fixture
def settings(tmp_path: Path, empty_store: Path) -> IngestSettings:
    (tmp_path / "work").mkdir()
    shutil.copyfile(empty_store, tmp_path / "work" / "mlflow.db")
    return IngestSettings(input=tmp_path / "in", output=tmp_path / "work" / "out")
