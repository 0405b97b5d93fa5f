"""The random checkpoint loaded, without and with an adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cxrreport.model.card import AdapterCard
from cxrreport.model.checkpoints import LoadedModel, load
from cxrreport.settings import CheckpointSettings, LoraSettings, PromptSettings


@pytest.fixture(scope="session")
def fresh(checkpoint_folder: Path) -> Callable[..., LoadedModel]:
    """Load the random checkpoint, with other checkpoint settings if given."""

    def make(**values: Any) -> LoadedModel:
        given = {"name": str(checkpoint_folder), "precision": "float32", "device": "cpu"} | values
        return load(CheckpointSettings.model_validate(given), resolution=224)

    return make


@pytest.fixture(scope="session")
def tuned(with_adapter: Callable[..., Any]) -> Callable[..., tuple[LoadedModel, AdapterCard]]:
    """Add an adapter whose B is not zero; returns the adapted model and its card."""

    def make(
        loaded: LoadedModel,
        *,
        rank: int = 4,
        targets: str = "language",
        rank_stabilised: bool = False,
        **card: Any,
    ) -> tuple[LoadedModel, AdapterCard]:
        lora = {"rank": rank, "alpha": 8, "targets": targets, "rank_stabilised": rank_stabilised}
        model, names = with_adapter(loaded.model, **lora)
        given = {
            "checkpoint": CheckpointSettings(name=loaded.name, precision="float32"),
            "fingerprint": loaded.fingerprint,
            "resolution": loaded.resolution,
            "prompt": PromptSettings(),
            "lora": LoraSettings.model_validate(lora),
            "modules": names,
            "preprocessing": {"resize": "squash", "interpolation": "bilinear"},
            "data_digest": "0" * 64,
            "steps": 3,
            "metrics": {"validation_loss": 1.5},
        }
        return replace(loaded, model=model), AdapterCard.model_validate(given | card)

    return make
