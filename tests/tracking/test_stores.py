"""Where the default store is: in folders with any name, and in folders that cannot be written."""

from __future__ import annotations

import os
import shlex
import sqlite3
import time
from pathlib import Path

import click
import pytest
from mlflow import MlflowClient
from mlflow.cli import cli as mlflow_cli

from cxrreport import tracking
from cxrreport.cli.output import mlflow_command
from cxrreport.errors import TrackingError
from cxrreport.settings import IngestSettings, TrackingSettings

pytestmark = pytest.mark.stock("mlflow")

NAMES = ["100% sure?", "a b", "x#y", "%41", 'it\'s "$HOME" & more;', "a@b:c", "Röntgen"]


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.parametrize("name", [" ".join(NAMES).replace("/", ""), "%41"])
def test_the_store_is_beside_the_output_for_any_folder_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "file.txt").write_text("x")
    settings = IngestSettings(input=tmp_path / "in", output=folder / "out")
    with tracking.start("ingest", settings, TrackingSettings(), output=settings.output) as run:
        run.artifact(folder / "file.txt")
    assert sorted(path.name for path in folder.iterdir()) == ["file.txt", "mlartifacts", "mlflow.db"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    uri = tracking.without_password(tracking.tracking_uri(TrackingSettings(), settings.output))
    store = MlflowClient(uri)
    assert "file.txt" in {one.path for one in store.list_artifacts(run.run_id)}
    assert [path.name for path in (folder / "mlartifacts").rglob("*.txt")] == ["file.txt"]
    # The printed command, read by a shell and by MLflow, names the same store.
    program, *arguments = shlex.split(mlflow_command(uri))
    server = mlflow_cli.get_command(click.Context(mlflow_cli), "ui")
    assert server is not None
    context = server.make_context("ui", arguments[1:], resilient_parsing=True)
    assert (program, arguments[0]) == ("mlflow", "ui")
    assert MlflowClient(context.params["backend_store_uri"]).get_run(run.run_id).info.status == "FINISHED"
    assert not tracking.is_new(uri)


@pytest.mark.parametrize("name", NAMES)
def test_the_uri_of_a_database_leads_back_to_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    database = tmp_path / name / "mlflow.db"
    uri = tracking.sqlite_uri(database)
    assert tracking.is_new(uri) and tracking.without_password(uri) == uri
    sqlite3.connect(database).close()
    assert not tracking.is_new(uri)


def folder_in_place(database: Path) -> None:
    database.mkdir()


def text_in_place(database: Path) -> None:
    database.write_text("no database " * 200)


@pytest.mark.parametrize("spoil", [folder_in_place, text_in_place])
def test_a_database_that_cannot_be_opened_is_reported_without_retries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: object
) -> None:
    spoil(tmp_path / "mlflow.db")  # type: ignore[operator]
    refused(tmp_path, monkeypatch, r"mlflow\.db: the MLflow database cannot be used: .*--no-track")


@pytest.mark.parametrize("closed", ["folder", "database"])
def test_a_store_that_cannot_be_written_is_reported_without_retries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    database = tmp_path / "mlflow.db"
    database.touch()
    unwritable = tmp_path if closed == "folder" else database
    access = os.access  # permissions do not bind the superuser, who may run this test

    def limited(path: Path, mode: int) -> bool:
        return access(path, mode) and not (Path(path) == unwritable and mode & os.W_OK)

    monkeypatch.setattr(os, "access", limited)
    refused(tmp_path, monkeypatch, r"mlflow\.db: the MLflow database cannot be used: .*writable.*--no-track")


def test_a_folder_in_which_no_store_can_be_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_given: object, **_more: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr("cxrreport.tracking.mlflow_store.locked_file", denied)
    refused(tmp_path, monkeypatch, r"mlflow\.db: the MLflow database cannot be created \(Permission denied\)")


def refused(folder: Path, monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    def no_retry(seconds: float) -> None:
        pytest.fail(f"waits {seconds} s for a store that cannot be used")

    monkeypatch.setattr(time, "sleep", no_retry)
    settings = IngestSettings(input=folder / "in", output=folder / "out")
    with (
        pytest.raises(TrackingError, match=message),
        tracking.start("ingest", settings, TrackingSettings(), output=settings.output),
    ):
        pass
