"""A training run that is stopped, killed or out of disk space resumes with equal results."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_runs import Scores, StoppedError, losses, run, stop_at

from cxrreport.errors import ManifestError, OutputError, TrainingError
from cxrreport.model import adapters
from cxrreport.model.card import AdapterCard
from cxrreport.settings import TrainSettings
from cxrreport.training import checkpointing
from cxrreport.training.finetune import train
from cxrreport.training.step_log import read_log

Settings = Callable[..., TrainSettings]


@pytest.mark.parametrize(
    ("stops", "options"),
    [((1, 3, 8), {"augment": True}), ((2, 5), {"loss": "per-token", "gradient_checkpointing": False})],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    settings: Settings, manifest: Any, tmp_path: Path, stops: tuple[int, ...], options: dict[str, Any]
) -> None:
    whole = settings(output=tmp_path / "whole", **options)
    run(whole, manifest)
    expected = losses(whole.output)
    weights = load_file(whole.output / "adapter" / adapters.WEIGHTS)
    for at in stops:
        parts = settings(output=tmp_path / f"parts-{at}", **options)
        with pytest.raises(StoppedError):
            train(parts, manifest, log=stop_at(at), progress=lambda *_: None)
        # The step at which it was stopped is in no line yet; a truncated line simulates a kill during writing.
        with (parts.output / "log.jsonl").open("a") as file:
            file.write('{"step": 9, "lo')
        log: list[Any] = []
        result = run(parts, manifest, log)
        assert result.resumed_at == (at - 1) // 2 * 2
        found = losses(parts.output)
        assert [step for step, _ in found] == list(range(1, 9))
        for (_, one), (_, other) in zip(expected, found, strict=True):
            assert one == pytest.approx(other, abs=1e-6)
        assert [step for step, values in log if "loss" in values] == list(range(at, 9))
        for name, tensor in load_file(result.adapter / adapters.WEIGHTS).items():
            torch.testing.assert_close(tensor, weights[name], rtol=0, atol=1e-6)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import MemoryManifest
from cxrreport.settings import TrainSettings
from cxrreport.training import checkpointing
from cxrreport.training.finetune import train

settings = TrainSettings.model_validate_json(sys.argv[2])
write = checkpointing.save_file

def save_file(tensors, path, *rest):
    write(tensors, path, *rest)
    if "0000004" in str(path) and any("exp_avg" in name for name in tensors):
        os.kill(os.getpid(), signal.SIGKILL)  # in the middle of the second checkpoint

checkpointing.save_file = save_file
train(settings, MemoryManifest(), log=lambda values, step: None, progress=lambda *_: None)
"""


def test_resume_after_sigkill_while_a_checkpoint_is_written(settings: Settings, manifest: Any, tmp_path: Path) -> None:
    whole, killed = settings(output=tmp_path / "whole"), settings(output=tmp_path / "killed")
    run(whole, manifest)
    arguments = [sys.executable, "-c", KILLED, str(Path(__file__).parent), killed.model_dump_json()]
    done = subprocess.run(arguments, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert [path.name for path in checkpointing.checkpoints(killed.output / "checkpoints")] == ["0000002"]
    (killed.output / "checkpoints" / "0000001").mkdir()
    result = run(killed, manifest)
    assert result.resumed_at == 2
    assert len(checkpointing.checkpoints(killed.output / "checkpoints")) == 2
    for (_, one), (_, other) in zip(losses(whole.output), losses(killed.output), strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_resume_after_a_kill_between_the_last_step_and_the_adapter(settings: Settings, manifest: Any) -> None:
    given = settings()
    result = run(given, manifest)
    before = load_file(result.adapter / adapters.WEIGHTS)
    forget_the_end(given.output)
    again = run(given, manifest)
    assert (again.resumed_at, again.loss) == (8, result.loss)
    after = load_file(again.adapter / adapters.WEIGHTS)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_checkpoints_hold_trained_weights_only_and_two_are_kept(settings: Settings, manifest: Any) -> None:
    given = settings()
    run(given, manifest)
    kept = checkpointing.checkpoints(given.output / "checkpoints")
    assert [path.name for path in kept] == ["0000006", "0000008"]
    assert all("lora_" in name for name in load_file(kept[0] / checkpointing.WEIGHTS))
    assert sum(file.stat().st_size for file in kept[0].iterdir()) < 200_000


def test_a_damaged_checkpoint(settings: Settings, manifest: Any) -> None:
    given = settings()
    with pytest.raises(StoppedError):
        train(given, manifest, log=stop_at(5), progress=lambda *_: None)
    (checkpointing.checkpoints(given.output / "checkpoints")[-1] / checkpointing.WEIGHTS).write_bytes(b"\0" * 50)
    with pytest.raises(TrainingError, match="0000004: cannot resume"):
        run(given, manifest)
    shutil.rmtree(given.output / "checkpoints" / "0000004")
    assert run(given, manifest).resumed_at == 2


def test_full_disk_at_a_checkpoint_loses_nothing(
    settings: Settings, manifest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings()
    write = checkpointing.save_file

    def full(tensors: Any, path: Path) -> None:
        if "0000004" in str(path):
            raise OSError(28, "No space left on device")
        write(tensors, path)

    monkeypatch.setattr(checkpointing, "save_file", full)
    with pytest.raises(OutputError, match="disk is full"):
        run(given, manifest)
    monkeypatch.setattr(checkpointing, "save_file", write)
    assert run(given, manifest).resumed_at == 2


def test_other_data_in_the_same_folder(settings: Settings, manifest: Any) -> None:
    with pytest.raises(StoppedError):
        train(settings(), manifest, log=stop_at(3), progress=lambda *_: None)
    manifest.digest = "e" * 64
    with pytest.raises(ManifestError, match="the data have changed since the run"):
        run(settings(), manifest)


def forget_the_end(folder: Path) -> None:
    """As if the run had been killed after its last step and before its adapter was written."""
    record = json.loads((folder / "train.json").read_text())
    known = {key: record[key] for key in ("verb", "settings", "data_digest")}
    (folder / "train.json").write_text(json.dumps(known | {"finished": False}))
    shutil.rmtree(folder / "adapter")


@pytest.mark.parametrize("stop", [None, 5, 7])
def test_early_stopping_keeps_the_best_step_when_resumed(settings: Settings, manifest: Any, stop: int | None) -> None:
    given = settings(max_steps=12, eval_every=2, save_every=4, validation={"patience": 2})
    scores = [0.1, 0.3, 0.2, 0.25]
    if stop is not None:
        with pytest.raises(StoppedError):
            train(given, manifest, log=stop_at(stop), progress=lambda *_: None, validate=Scores(scores))
        scores = scores[2:]  # it resumes from the checkpoint of step 4
    result = run(given, manifest, validate=Scores(scores))
    assert (result.steps, result.planned_steps, result.best_step) == (8, 12, 4)
    assert result.validation["validation_radgraph_f1"] == 0.3
    lines = [line for line in read_log(given.output / "log.jsonl") if "validation_loss" in line]
    assert [(line["step"], line["best_step"]) for line in lines] == [(2, 2), (4, 4), (6, 4), (8, 4)]
    kept = load_file(result.adapter / adapters.WEIGHTS)
    best = load_file(given.output / "checkpoints" / "best.safetensors")
    last = load_file(given.output / "checkpoints" / "0000008" / checkpointing.WEIGHTS)
    names = {name: name.replace(".weight", ".default.weight") for name in kept}
    assert all(torch.equal(best[names[name]], tensor) for name, tensor in kept.items())
    assert not all(torch.equal(last[names[name]], tensor) for name, tensor in kept.items())
    card = AdapterCard.read(result.adapter)
    assert (card.steps, card.trained_steps, card.metrics["validation_radgraph_f1"]) == (4, 8, 0.3)
    forget_the_end(given.output)
    again = run(given, manifest, validate=Scores([]))  # there is nothing left to validate
    assert (again.steps, again.best_step, again.resumed_at) == (8, 4, 8)
    assert all(torch.equal(kept[name], t) for name, t in load_file(again.adapter / adapters.WEIGHTS).items())


def test_a_damaged_best_file(settings: Settings, manifest: Any) -> None:
    with pytest.raises(StoppedError):
        train(settings(), manifest, log=stop_at(5), progress=lambda *_: None)
    best = settings().output / "checkpoints" / "best.safetensors"
    best.write_bytes(b"\0" * 20)
    with pytest.raises(TrainingError, match=r"best\.safetensors: damaged; remove it"):
        run(settings(), manifest)
