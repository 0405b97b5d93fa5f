"""Tests of what only a GPU shows: `pytest -m gpu`. Without one they are skipped.

`CXRREPORT_GPU_TESTS=cpu` runs those that can on a CPU, with the forms for a GPU, to try the tests themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cxrreport.model.adapters import paligemma
from cxrreport.model.checkpoints import LoadedModel, load
from cxrreport.model.fused import fused
from cxrreport.settings import CheckpointSettings

ON_CPU = os.environ.get("CXRREPORT_GPU_TESTS") == "cpu"
HERE = Path(__file__).parent


def pytest_report_header() -> str:
    if not torch.cuda.is_available():
        return "GPU: none"
    properties = torch.cuda.get_device_properties(0)
    return f"GPU: {properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture
def device() -> torch.device:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.device("cuda")
    if ON_CPU:
        return torch.device("cpu")
    pytest.skip("there is no CUDA device here")


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """For tests that a CPU cannot run."""
    if device.type != "cuda":
        pytest.skip("needs CUDA")
    return device


@pytest.fixture
def loaded(device: torch.device, generation_checkpoint_folder: Path) -> Callable[..., LoadedModel]:
    """Load the random checkpoint that writes reports."""

    def make(**values: Any) -> LoadedModel:
        given = {"name": str(generation_checkpoint_folder), "precision": "float32", "device": device.type} | values
        return load(CheckpointSettings.model_validate(given), resolution=224)

    return make


@pytest.fixture
def forms(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The forms for a GPU on a model, also where it is on the CPU."""

    def within(loaded: LoadedModel, **options: Any) -> Any:
        language = paligemma(loaded.model).language_model
        return fused(loaded.model, language, softcap=loaded.softcap, device="cuda", **options)

    return within


@pytest.fixture
def with_b(with_adapter: Callable[..., Any]) -> Callable[[LoadedModel], LoadedModel]:
    """The model with an adapter whose B is not zero, the same for every model."""

    def adapted(loaded: LoadedModel) -> LoadedModel:
        torch.manual_seed(0)
        return replace(loaded, model=with_adapter(loaded.model)[0].to(loaded.device))

    return adapted
