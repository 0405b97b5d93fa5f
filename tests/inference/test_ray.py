"""Shards through Ray: two actors on this machine, one of them killed."""

from __future__ import annotations

import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cxrreport import runs
from cxrreport.errors import MissingExtraError, SettingsError
from cxrreport.inference.ray_pipeline import run_on_ray
from cxrreport.settings import CheckpointSettings, GenerateSettings, IngestSettings, PromptSettings, TrackingSettings

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray (extra ray) is not installed")
OFF = TrackingSettings(enabled=False)


def make_data(folder: Path, count: int) -> Path:
    """An ingest folder of drawn images."""
    rows = ["image,study_id,patient_id,split,indication,findings"]
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,s{number:03d},p{number:03d},test,cough,Lungs are clear.")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    runs.ingest(IngestSettings(input=folder / "table.csv", output=folder / "data", layout="table", tracking=OFF))
    return folder / "data"


def kill_an_actor(killed: list[int], output: Path) -> None:
    """Once a shard is there, kill one of the processes that hold the model."""
    while not killed:
        time.sleep(0.02)
        if not list((output / "shards").glob("[0-9]*.jsonl")):
            continue
        for process in psutil.Process().children(recursive=True):
            name = " ".join(process.cmdline())
            if name.startswith("ray::") and "_Actor" in name:
                process.kill()
                killed.append(process.pid)
                break


@needs_ray
def test_an_actor_is_killed_and_the_predictions_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 otherwise, which on a busy machine is never
    data = make_data(tmp_path, 24)
    given = {
        "input": data,
        "checkpoint": CheckpointSettings(name="tiny", precision="float32", device="cpu"),
        "shard_size": 2,
        "batch_size": 2,
        "max_new_tokens": 24,
        "tracking": OFF,
    }
    runs.generate(GenerateSettings(**given, output=tmp_path / "alone"))
    killed: list[int] = []
    killer = threading.Thread(target=kill_an_actor, args=(killed, tmp_path / "many"), daemon=True)
    killer.start()
    summary = runs.generate(
        GenerateSettings(**given, output=tmp_path / "many", ray={"address": "local", "actors": 2, "cpus": 0.5})
    )
    assert killed, "no actor was found to be killed"
    assert not psutil.pid_exists(killed[0])
    assert summary.facts["predictions"] == 24
    alone, many = (pq.read_table(tmp_path / name / "predictions.parquet").to_pylist() for name in ("alone", "many"))
    assert [(row["study_id"], row["text"], row["tokens"]) for row in alone] == [
        (row["study_id"], row["text"], row["tokens"]) for row in many
    ]


def test_missing_cluster_and_missing_ray_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = GenerateSettings(input=tmp_path, output=tmp_path, ray={"address": "127.0.0.1:1"})
    assert list(run_on_ray({}, settings, PromptSettings(), tmp_path)) == []
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"cxrreport\[ray\]"):
        list(run_on_ray({0: ()}, settings, PromptSettings(), tmp_path))


@needs_ray
def test_an_address_without_cluster_names_the_field(tmp_path: Path) -> None:
    settings = GenerateSettings(input=tmp_path, output=tmp_path, ray={"address": "nowhere://"})
    with pytest.raises(SettingsError, match=r"ray\.address"):
        list(run_on_ray({0: ()}, settings, PromptSettings(), tmp_path))
