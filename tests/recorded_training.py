"""The training runs that were recorded from version 0.1.0; see `training/test_recorded.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cxrreport.training import checkpointing
from cxrreport.training.step_log import read_log

RECORDED = Path(__file__).parent / "training" / "recorded"
COMMON = {"max_steps": 40, "eval_every": 10, "save_every": 10}
LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}
CASES: dict[str, dict[str, Any]] = {
    "lora": {"lora": LORA},
    "per-token": {"lora": LORA | {"targets": "language+projector"}, "loss": "per-token", "augment": True},
    "full": {"lora": None, "learning_rate": 1e-3},
}
SEVERAL = {
    "ddp-lora": CASES["lora"],
    "ddp-per-token": CASES["per-token"],
    "sharded-lora": CASES["lora"] | {"sharding": "full"},
    "sharded-full": CASES["full"] | {"sharding": "full"},
}


def assert_as_recorded(name: str, folder: Path) -> None:
    recorded = json.loads((RECORDED / f"{name}.json").read_text())
    lines = read_log(folder / "log.jsonl")
    for number, expected in recorded["steps"].items():
        found = [line[number] for line in lines if number in line]
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5), number
    weights = load_file(folder / "checkpoints" / "0000040" / checkpointing.WEIGHTS)
    assert weights.keys() == recorded["weights"].keys()
    for parameter, (norm, product) in recorded["weights"].items():
        tensor = weights[parameter].double().flatten()
        vector = torch.randn(
            tensor.numel(), generator=torch.Generator().manual_seed(len(parameter)), dtype=torch.float64
        )
        assert float(tensor.norm()) == pytest.approx(norm, rel=1e-3, abs=1e-3), parameter
        assert float(tensor @ vector) == pytest.approx(product, abs=2e-3 * max(norm, 1.0)), parameter
