"""Lists within lists, deeper than Python can parse: a sentence that names the file, or a row, wherever one is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from plain_studies import write_study
from typer.testing import CliRunner

from cxrreport import cli
from cxrreport.assets import radgraph_folder
from cxrreport.storage.decoding import parse_json

DEEP = "[" * 100_000 + "]" * 100_000
REFERENCES = json.dumps({"study_id": "1", "patient_id": "1", "findings": "No effusion."}) + "\n"
PREDICTIONS = json.dumps({"study_id": "1", "text": "Clear."}) + "\n"


def said(*words: object) -> str:
    done = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert done.exit_code == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_what_nests_too_deep_is_no_json() -> None:
    with pytest.raises(ValueError, match="too deep"):
        parse_json(DEEP)


def test_configurations(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("input: " + "[" * 5000 + "]" * 5000 + "\n")
    assert "a.yaml: lists or mappings are nested too deep" in said("ingest", tmp_path / "a.yaml", "--no-track")
    assert "--set views=" in said("ingest", "-i", tmp_path, "-o", tmp_path / "o", "--set", "views=" + "[" * 5000)


def test_state_files(tmp_path: Path) -> None:
    write_study(tmp_path / "in" / "a.dcm", 1)
    (tmp_path / "in" / "below").mkdir()
    (tmp_path / "in" / "below" / "train.json").write_text(DEEP)  # looked at, to skip output folders
    words = ("ingest", "-i", tmp_path / "in", "--no-require-report", "--no-track", "-o")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "ingest.json").write_text(DEEP)
    assert "ingest.json: cannot be read as JSON" in said(*words, tmp_path / "used")
    done = CliRunner().invoke(cli.app, [str(word) for word in (*words, tmp_path / "out")])
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [("p.jsonl", DEEP), ("p.json", DEEP), ("p.jsonl", PREDICTIONS[:-2] + ', "findings": ' + DEEP + "}\n")],
)
def test_predictions(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    (tmp_path / "r.jsonl").write_text(REFERENCES)
    words = ("-r", tmp_path / "r.jsonl", "-o", tmp_path / "o", "--radgraph", "tiny", "--no-track")
    assert name in said("evaluate", "-p", tmp_path / name, *words)


def test_weights(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(PREDICTIONS)
    (tmp_path / "r.jsonl").write_text(REFERENCES)
    shutil.copytree(radgraph_folder(), tmp_path / "archive")
    (tmp_path / "archive" / "config.json").write_text(DEEP)
    words = ("-p", tmp_path / "p.jsonl", "-r", tmp_path / "r.jsonl", "-o", tmp_path / "o", "--no-track")
    done = CliRunner().invoke(cli.app, [str(word) for word in ("evaluate", *words, "--radgraph", tmp_path / "archive")])
    assert done.exit_code == 0 and "Traceback" not in done.stderr, done.stderr  # the other metrics are computed
    assert f"{tmp_path / 'archive' / 'config.json'}: " in done.stderr.replace("\n", " ")
