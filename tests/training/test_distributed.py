"""Two processes over gloo: the same curve as one, and parameters that are sharded in two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded_training import COMMON, SEVERAL, assert_as_recorded
from safetensors.torch import load_file

from cxrreport.errors import SettingsError
from cxrreport.model import adapters, checkpoints
from cxrreport.settings import TrainSettings
from cxrreport.training import distributed as processes
from cxrreport.training.distributed import ProcessGroup, check_processes
from cxrreport.training.finetune import train
from cxrreport.training.step_log import read_log

Settings = Callable[..., TrainSettings]
HERE = Path(__file__).parent
STEPS = 20


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
# Not with `--cpu`: accelerate then starts one process, whatever number it is given, unless there is MPI.
ACCELERATE = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0")


def started(out: Path, *runs: TrainSettings, launch: Sequence[str] = TORCHRUN) -> list[list[dict[str, Any]]]:
    """What each of two processes found, run by run."""
    files = []
    for number, settings in enumerate(runs):
        files.append(out / f"{number}.json")
        files[-1].write_text(settings.model_dump_json())
    done = subprocess.run(
        [sys.executable, *launch, str(HERE / "several.py"), str(out), *map(str, files)],
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return [json.loads((out / f"found-{rank}.json").read_text()) for rank in (0, 1)]


def curve(folder: Path, name: str) -> list[tuple[float, float]]:
    return [(line["step"], line[name]) for line in read_log(folder / "log.jsonl") if name in line]


def test_two_processes_equal_one(settings: Settings, manifest: Any, reports: Any, tmp_path: Path) -> None:
    """DDP; sharded LoRA that trains, saves, is stopped and resumed; sharded full fine-tuning; the recorded runs."""
    common = {"max_steps": STEPS, "eval_every": 10, "save_every": 10}
    per_token = {"loss": "per-token", "lora": {"rank": 4, "alpha": 8, "dropout": 0.1, "targets": "language+projector"}}
    full = {"lora": None, "learning_rate": 1e-3, "max_steps": 4, "eval_every": 2, "save_every": 2}
    cases = [common, common | per_token, common | {"sharding": "full"}, full | {"sharding": "full"}]
    several = [settings(output=tmp_path / f"several-{i}", **case) for i, case in enumerate(cases)]
    alone = [settings(output=tmp_path / f"alone-{i}", **case | {"sharding": "none"}) for i, case in enumerate(cases)]
    stopped = several[2].model_copy(update={"output": tmp_path / "stopped"})  # at step 12, to resume from step 10
    generated = []
    for one in alone:
        written = reports()
        train(one, manifest, log=lambda *_: None, progress=lambda *_: None, validate=written)
        generated.append(written.written)
    recorded = {name: settings(output=tmp_path / name, **COMMON | case) for name, case in SEVERAL.items()}
    first, second = started(tmp_path, *several, stopped, stopped, *recorded.values())
    for name, run in recorded.items():
        assert_as_recorded(name, run.output)
    for one, other in [*zip(alone, several, strict=True), (alone[2], stopped)]:
        for name in ("loss", "grad_norm", "validation_loss"):
            expected, got = curve(one.output, name), curve(other.output, name)
            assert [step for step, _ in got] == [step for step, _ in expected] != []
            assert [value for _, value in got] == pytest.approx([value for _, value in expected], abs=1e-5, rel=1e-5)
    for rank, runs in enumerate((first[: -len(recorded)], second[: -len(recorded)])):
        # Reports generated for validation, by each for itself, or by all together as no pass of a shard is its own.
        for run, expected in zip(runs, [*generated, generated[2][1:]], strict=True):
            assert len(run["written"]) == len(expected) > 0
            for got, wanted in zip(run["written"], expected, strict=True):
                assert got == pytest.approx(wanted, abs=1e-3)
        assert [run["resumed_at"] for run in runs] == [0, 0, 0, 0, 10]
        assert [run["before"]["sharded"] for run in runs[:2]] == [0, 0]
        for run in runs[2:]:
            for held in (run["before"], run["after"]):
                assert held["sharded"] == held["tensors"] > 40
                assert 0.4 < held["here"] / held["numbers"] < 0.6
        assert (runs[-1]["logged"] > 0) == (rank == 0)  # the first alone reports
    three = (alone[2], several[2], stopped)
    expected, *others = (load_file(run.output / "adapter" / adapters.WEIGHTS) for run in three)
    for other in others:
        assert expected.keys() == other.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-5)
    loaded = checkpoints.load(several[2].checkpoint, resolution=224)
    assert adapters.load(several[2].output / "adapter", loaded).model.peft_config["default"].r == 4


@pytest.mark.slow
def test_accelerate_launch_starts_the_processes(settings: Settings, manifest: Any, tmp_path: Path) -> None:
    common = {"max_steps": 4, "eval_every": 2, "save_every": 2}
    several, alone = (settings(output=tmp_path / name, **common) for name in ("several", "alone"))
    train(alone, manifest, log=lambda *_: None, progress=lambda *_: None)
    first, second = started(tmp_path, several, launch=ACCELERATE)
    assert (first[0]["logged"] > 0, second[0]["logged"]) == (True, 0)
    expected, got = curve(alone.output, "loss"), curve(several.output, "loss")
    assert [value for _, value in got] == pytest.approx([value for _, value in expected], abs=1e-5)
    assert len(got) == 4


def test_the_number_of_processes_must_divide_accumulation(settings: Settings, manifest: Any) -> None:
    with pytest.raises(SettingsError, match=r"sharding: full needs several processes \(torchrun"):
        train(settings(sharding="full"), manifest, log=lambda *_: None, progress=lambda *_: None)
    with pytest.raises(SettingsError, match="accumulation: 2 forward passes cannot be shared by 3 processes"):
        check_processes(settings(accumulation=2), ProcessGroup(0, 3))


def test_distributed_results_are_in_the_order_of_the_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """What three processes gather, simulated in one."""
    items = list(range(7))
    parts = [[item * 10 for item in items[rank::3]] for rank in range(3)]

    def gather(into: list[Any], own: list[int]) -> None:
        assert own == parts[1]
        into[:] = parts

    monkeypatch.setattr(processes.dist, "all_gather_object", gather)
    assert ProcessGroup(1, 3).distribute(lambda some: [item * 10 for item in some], items) == [
        item * 10 for item in items
    ]
