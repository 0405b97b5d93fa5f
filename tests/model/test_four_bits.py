"""QLoRA without CUDA: the configuration, the errors, and the layers on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.utils.quantization_config import QuantizationMethod

from cxrreport.errors import MissingExtraError, SettingsError
from cxrreport.model.card import model_card
from cxrreport.model.checkpoints import load, loading, weights
from cxrreport.settings import CheckpointSettings, TrainSettings

CUDA = torch.device("cuda")


def test_the_configuration_is_that_of_qlora(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: name)
    config = weights.four_bits(CUDA)
    assert config.quant_method == QuantizationMethod.BITS_AND_BYTES
    assert (config.load_in_4bit, config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert set(config.llm_int8_skip_modules) == {"model.vision_tower", "model.multi_modal_projector", "lm_head"}


def test_without_cuda_or_the_extra_there_is_a_remedy(checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"checkpoint\.precision: nf4 needs a CUDA device.*choose bfloat16"):
        load(CheckpointSettings(name=str(checkpoint_folder), precision="nf4", device="cpu"), resolution=224)
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cxrreport\[qlora\]'"):
        weights.four_bits(CUDA)


def test_layers_that_cannot_be_trained_in_four_bits(tmp_path: Path) -> None:
    given = {"data": tmp_path, "output": tmp_path, "checkpoint": {"name": "x", "precision": "nf4"}}
    for more, field in (({"lora": None}, "lora: null"), ({"sharding": "full"}, "sharding: full")):
        with pytest.raises(ValueError, match=f"nf4 cannot be combined with {field}"):
            TrainSettings.model_validate(given | more)


def test_language_layers_are_in_four_bits_and_learn(
    checkpoint_folder: Path, tuned: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, where bitsandbytes is slow but correct."""
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
    monkeypatch.setattr(loading, "four_bits", lambda device: weights.four_bits(CUDA))
    settings = CheckpointSettings(name=str(checkpoint_folder), precision="nf4", device="cpu")
    loaded = load(settings, resolution=224)
    four = {name for name, module in loaded.model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}
    tuned_model, card = tuned(loaded, rank=2, checkpoint=settings)
    adapted = tuned_model.model
    assert four == set(card.modules)  # the seven projections of every layer and nothing else
    embeddings = adapted.get_input_embeddings().weight
    assert embeddings.dtype == torch.bfloat16
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert all(p.dtype == torch.float32 for p in trained.values())
    layer = adapted.get_base_model().model.language_model.layers[0].mlp.up_proj
    adapted.train()  # bitsandbytes repacks weights for inference on a CPU, and not of every width
    layer(torch.randn(3, layer.in_features)).float().square().mean().backward()
    assert layer.lora_A["default"].weight.grad.abs().sum() > 0
    assert "Method: QLoRA (base in 4 bits, nf4), rank 2" in model_card(card)
