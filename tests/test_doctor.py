"""What the doctor says of this machine, and of one that lacks something."""

from __future__ import annotations

import json
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cxrreport import cli, doctor
from cxrreport.doctor import State, examine
from cxrreport.ingestion import dicom
from cxrreport.settings import WEIGHTS


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv(WEIGHTS, str(tmp_path / "weights"))


def checks(folder: Path) -> dict[str, doctor.Check]:
    return {check.name: check for check in examine(folder)}


def test_every_failed_check_has_a_remedy(tmp_path: Path) -> None:
    found = checks(tmp_path / "not" / "there" / "yet")
    assert found.keys() == {
        *("packages", "processor", "gpu", "disk", "decoders", "mlflow", "extras"),
        *("weights: base", "weights: RadGraph", "weights: CheXbert"),
        *("weights: BERTScore and RadCliQ", "weights: BERTScore of RadEval", "weights: RaTEScore"),
    }
    assert all(check.remedy for check in found.values() if check.state is not State.OK)
    assert not [check for check in found.values() if check.state is State.FAIL]
    assert "torch 2." in found["packages"].detail
    assert f"cxrreport weights radgraph-xl --weights {tmp_path / 'weights'}" in found["weights: RadGraph"].remedy
    assert list(tmp_path.iterdir()) == []  # it writes nothing


def test_present_weights_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "weights" / "chexbert"
    folder.mkdir(parents=True)
    (folder / "chexbert.pth").touch()
    (folder / "vocab.txt").touch()
    found = checks(tmp_path)["weights: CheXbert"]
    assert (found.state, found.detail) == (State.OK, "chexbert")


def test_a_machine_with_missing_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(10**12, 10**12 - 10**9, 10**9))
    monkeypatch.setattr(dicom, "installed_decoders", lambda: {"RLE Lossless": (), "JPEG 2000": ("gdcm",)})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.1" if name == "peft" else real(name))
    found = checks(tmp_path)
    assert {name for name, check in found.items() if check.state is State.FAIL} == {"packages", "disk", "mlflow"}
    assert "peft is 0.0.1" in found["packages"].detail
    assert found["decoders"].detail == "none for RLE Lossless"
    assert "secret" not in str(found)


def test_the_command_prints_a_table_or_json_and_fails_on_a_failed_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = CliRunner(env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"})
    bad = doctor.Check(name="disk", state=State.FAIL, detail="full [sic]", remedy="make room")
    monkeypatch.setattr(doctor, "examine", lambda _: iter([bad]))
    shown = runner.invoke(cli.app, ["doctor", str(tmp_path)])
    assert shown.exit_code == 1
    assert "full [sic]" in shown.output
    assert "-> make room" in shown.output
    told = runner.invoke(cli.app, ["doctor", "--json"])
    assert told.exit_code == 1
    assert json.loads(told.stdout)["checks"] == [
        {"name": "disk", "state": "fail", "detail": "full [sic]", "remedy": "make room"}
    ]
    monkeypatch.setattr(doctor, "examine", lambda _: iter([]))
    assert runner.invoke(cli.app, ["doctor"]).exit_code == 0
