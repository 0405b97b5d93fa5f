"""Fixtures that several packages use."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def shared() -> Path:
    """Real reports and radiographs in a folder beside the project."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real material is not here: ../shared/data")
    return folder


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint for images of 224 px, which become 16 tokens."""
    from random_checkpoint import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def generation_checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint for images of 224 px that writes reports of different lengths."""
    from random_checkpoint import write_generation_checkpoint

    return write_generation_checkpoint(tmp_path_factory.mktemp("checkpoint"), image_size=224)


@pytest.fixture(scope="session")
def with_adapter() -> Callable[..., tuple[Any, tuple[str, ...]]]:
    """Attach LoRA whose B is not zero, as after some steps of training; returns the model and the adapted layers."""

    def attach_trained(model: Any, *, std: float = 0.1, **settings: Any) -> tuple[Any, tuple[str, ...]]:
        import torch

        from cxrreport.model.adapters import attach
        from cxrreport.settings import LoraSettings

        adapted, names = attach(model, LoraSettings.model_validate({"rank": 4, "alpha": 8} | settings))
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=std)
        return adapted.eval(), names

    return attach_trained


@pytest.fixture(scope="session")
def small_demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str], str]:
    """Output folder of a small demo, its process, and the connections that it tried to make."""
    import small_demo as module

    folder = tmp_path_factory.mktemp("small-demo")
    done, seen = module.run_guarded(folder, Path(module.__file__).read_text(), str(folder / "demo"))
    return folder / "demo", done, seen
