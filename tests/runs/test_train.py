"""`runs.train` when it is killed, when it is several processes, and what `merge` makes of its adapter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from small_pipeline import UNTRACKED, write_studies
from typer.testing import CliRunner

from cxrreport import runs
from cxrreport.cli import app
from cxrreport.errors import MismatchError, OutputError, WeightsError
from cxrreport.model.card import AdapterCard
from cxrreport.settings import (
    CheckpointSettings,
    GenerateSettings,
    IngestSettings,
    MergeSettings,
    TrainSettings,
)
from cxrreport.training.step_log import read_log

STEPS = 8


@dataclass(frozen=True)
class Place:
    folder: Path
    checkpoint: str
    whole: runs.Summary

    def settings(self, output: str, **values: Any) -> TrainSettings:
        return recipe(self.folder, self.checkpoint, output, **values)


def recipe(folder: Path, checkpoint: str, output: str, **values: Any) -> TrainSettings:
    given: dict[str, Any] = {
        "data": folder / "data",
        "output": folder / output,
        "checkpoint": {"name": checkpoint, "precision": "float32", "device": "cpu"},
        "prompt": {"max_suffix_tokens": 24},
        "lora": {"rank": 2, "alpha": 4, "dropout": 0.1},
        "learning_rate": 0.01,
        "max_steps": STEPS,
        "batch_size": 1,
        "accumulation": 2,
        "eval_every": 2,
        "save_every": 2,
        "validation": {"radgraph": "tiny"},
    }
    return TrainSettings.model_validate(given | values)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, generation_checkpoint_folder: Path) -> Place:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        folder = tmp_path_factory.mktemp("train")
        checkpoint = str(generation_checkpoint_folder)
        table = write_studies(folder / "in") / "studies.csv"
        runs.ingest(IngestSettings(input=table, output=folder / "data", layout="table", tracking=UNTRACKED))
        return Place(folder, checkpoint, runs.train(recipe(folder, checkpoint, "whole")))


def stored(place: Place, output: str) -> list[Run]:
    client = MlflowClient(f"sqlite:///{place.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("cxrreport")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], "tags.`cxrreport.verb` = 'train'")
    return [run for run in found if run.data.params["output"] == str(place.folder / output)]


def check_equal(place: Place, output: str, run_id: str) -> None:
    """One finished run that holds every step once, with the values of the undisturbed one."""
    client = MlflowClient(f"sqlite:///{place.folder / 'mlflow.db'}")
    (run,) = stored(place, output)
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    for name, steps in (("loss", range(1, STEPS + 1)), ("validation_loss", range(2, STEPS + 1, 2))):
        curve = client.get_metric_history(run_id, name)
        assert [point.step for point in curve] == list(steps)
        expected = [line[name] for line in read_log(place.folder / "whole" / "log.jsonl") if name in line]
        assert [point.value for point in curve] == pytest.approx(expected, abs=1e-6)


def test_the_best_step_is_in_card_and_mlflow(place: Place) -> None:
    (run,) = stored(place, "whole")
    card = AdapterCard.read(place.folder / "whole" / "adapter")
    assert run.data.metrics["final/best_step"] == card.steps == place.whole.facts["best_step"]
    assert card.trained_steps == STEPS
    assert card.metrics["validation_radgraph_f1"] == place.whole.facts["validation_radgraph_f1"]
    assert card.conditions["radgraph"] == run.data.tags["validation.radgraph"]
    assert run.data.tags["validation.weights_sha256"] == card.conditions["weights_sha256"]
    assert run.data.metrics["final/adapted_modules"] == len(card.modules) == 14


KILLED = """
import os, signal, sys
from cxrreport import runs
from cxrreport.settings import TrainSettings

def progress(done, total, label):
    if label == "training" and done == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

runs.train(TrainSettings.model_validate_json(sys.argv[1]), progress=progress)
"""


def test_a_run_killed_at_any_step_resumes(place: Place) -> None:
    settings = place.settings("killed")
    for step in (3, 6):  # neither is one that has just been saved
        arguments = [sys.executable, "-c", KILLED, settings.model_dump_json(), str(step)]
        # As many threads as the undisturbed run: sums depend on their number.
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        done = subprocess.run(arguments, capture_output=True, env=os.environ | threads, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-3000:]
    (run,) = stored(place, "killed")
    last = runs.train(settings)
    assert last.run_id == run.info.run_id
    assert last.result.resumed_at == 4
    check_equal(place, "killed", last.run_id)
    assert (place.folder / "killed" / "adapter" / "adapter_model.safetensors").read_bytes() == (
        place.folder / "whole" / "adapter" / "adapter_model.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_torchrun_is_one_run_with_the_same_curve(place: Place) -> None:
    config = place.folder / "several.yaml"
    config.write_text(yaml.safe_dump(place.settings("several").model_dump(mode="json")))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "cxrreport", "train", str(config), "--json"],
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    summary = json.loads(done.stdout)  # one process prints
    assert summary["validation_radgraph_f1"] == place.whole.facts["validation_radgraph_f1"]
    check_equal(place, "several", summary["run_id"])


def test_merge_makes_a_checkpoint_that_writes_the_same_reports(place: Place) -> None:
    adapter, merged = place.folder / "whole" / "adapter", place.folder / "merged"
    made = CliRunner().invoke(app, ["merge", str(adapter), str(merged), "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["files"] == 1
    own = {"input": place.folder / "data", "tracking": UNTRACKED, "max_new_tokens": 8}
    checkpoint = CheckpointSettings(name=str(merged), precision="float32", device="cpu")
    for name, model in (("by-adapter", {"adapter": adapter}), ("by-merged", {"checkpoint": checkpoint})):
        runs.generate(GenerateSettings(output=place.folder / name, **own, **model))
    texts = [
        [json.loads(line)["text"] for line in (place.folder / name / "predictions.jsonl").read_text().splitlines()]
        for name in ("by-adapter", "by-merged")
    ]
    assert texts[0] == texts[1]
    again = runs.merge(MergeSettings(adapter=adapter, output=merged))
    assert again.facts["files"] == 1
    with pytest.raises(OutputError, match="shard_gb"):
        runs.merge(MergeSettings(adapter=adapter, output=merged, shard_gb=1))


def test_merge_refuses_what_does_not_belong_together(place: Place, tmp_path: Path) -> None:
    adapter = place.folder / "whole" / "adapter"
    with pytest.raises(MismatchError, match=r"resolution|sha256"):
        runs.merge(
            MergeSettings(
                adapter=adapter,
                output=tmp_path / "a",
                checkpoint=CheckpointSettings(name="tiny", device="cpu"),
                tracking=UNTRACKED,
            )
        )
    with pytest.raises(WeightsError, match=r"cxrreport\.json is missing"):
        runs.merge(MergeSettings(adapter=tmp_path, output=tmp_path / "b", tracking=UNTRACKED))
