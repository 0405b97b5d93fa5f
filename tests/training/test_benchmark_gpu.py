"""The benchmark on a GPU, run without one: the same code on the small model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

GPU = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_it_runs_without_a_gpu() -> None:
    options = ["--device", "cpu", "--size", "small", "--resolution", "224", "--steps", "2", "--warm-up", "1"]
    options += ["--rounds", "1", "--studies", "6", "--tokens", "4", "12", "--stock-batches", "1", "2"]
    done = subprocess.run([sys.executable, str(GPU), *options], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["device"] == "CPU"
    assert found["share_of_peak"] is None
    assert found["speedup"] > 0
    assert found["memory_ratio"] < 1
    assert found["loss_difference"] < 0.05  # bfloat16 on either side
    assert (found["training_batch"], found["stock_training_batch"], found["batch"]) == (1, 1, 8)
    assert found["texts_equal_float32"] == 4
    assert found["studies_per_second"] > 0 and found["stock_studies_per_second"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_without_a_gpu_there_is_a_note() -> None:
    done = subprocess.run([sys.executable, str(GPU)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--device cpu --size small" in done.stderr
