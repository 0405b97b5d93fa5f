"""Losses, gradient norms and final weights equal those of version 0.1.0, whose loop was `transformers.Trainer`.

Recorded: 40 steps of a random checkpoint of two layers, two passes per step, a validation and a checkpoint every 10
steps; in one process, stopped at step 25 and resumed, and in two processes over gloo (DDP and `fully_shard`). `weights`
has the norm of every trained tensor and its product with a random vector.

On the machine of the recording losses agree to 1e-6. Other kernels round differently, and 40 steps at a high learning
rate amplify that, hence the tolerances. A change of the computation moves losses by more than that within a few steps.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded_training import CASES, COMMON, RECORDED, assert_as_recorded

from cxrreport.settings import TrainSettings
from cxrreport.training.finetune import train
from cxrreport.training.step_log import read_log


class StoppedError(Exception):
    pass


def stop_at_25(values: dict[str, float], step: int) -> None:
    if step == 25 and "loss" in values:
        raise StoppedError


@pytest.mark.parametrize("name", CASES)
def test_one_process_stopped_and_resumed(
    name: str, settings: Callable[..., TrainSettings], manifest: Any, tmp_path: Path
) -> None:
    given = settings(output=tmp_path / name, **COMMON | CASES[name])
    with pytest.raises(StoppedError):
        train(given, manifest, log=stop_at_25, progress=lambda *_: None)
    result = train(given, manifest, log=lambda *_: None, progress=lambda *_: None)
    assert result.resumed_at == 20
    assert_as_recorded(name, given.output)


def test_a_checkpoint_of_version_0_1_0_resumes(
    settings: Callable[..., TrainSettings], manifest: Any, tmp_path: Path
) -> None:
    """Its optimiser state is numbered, and its schedule is a separate file."""
    given = settings(output=tmp_path / "lora", **COMMON | CASES["lora"])
    with pytest.raises(StoppedError):
        train(given, manifest, log=stop_at_25, progress=lambda *_: None)
    recorded = json.loads((RECORDED / "lora.json").read_text())["steps"]
    shutil.rmtree(given.output / "checkpoints")
    shutil.copytree(RECORDED / "checkpoint-0.1.0", given.output / "checkpoints" / "0000030")
    assert train(given, manifest, log=lambda *_: None, progress=lambda *_: None).resumed_at == 30
    losses = [line["loss"] for line in read_log(given.output / "log.jsonl") if line["step"] > 30 and "loss" in line]
    assert losses == pytest.approx(recorded["loss"][30:], rel=1e-3, abs=1e-5)
