"""LoRA onto the right layers, exact after saving, refused elsewhere."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import training_batch
from safetensors.torch import load_file, save_file

from cxrreport.errors import MismatchError, WeightsError
from cxrreport.model import adapters
from cxrreport.model.adapters import attach
from cxrreport.model.card import AdapterCard, model_card
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.fused import fused
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Report
from cxrreport.settings import LoraSettings, PromptSettings

pytestmark = pytest.mark.stock("peft")

PREPROCESSING = {"resize": "squash", "interpolation": "bilinear"}


def logits(loaded: LoadedModel) -> torch.Tensor:
    layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
    image = np.random.default_rng(1).integers(0, 256, (224, 224), dtype=np.uint8)
    batch = training_batch(layout, [Report(indication="cough", findings="The heart is enlarged.")], [image])
    with torch.no_grad():
        return loaded.model(**{k: v for k, v in batch.items() if k != "labels"}).logits


@pytest.fixture
def saved(fresh: Callable[..., LoadedModel], tuned: Callable[..., Any], tmp_path: Path) -> Path:
    adapted, card = tuned(fresh())
    adapters.save(tmp_path / "adapter", adapted.model, card)
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    ("targets", "count"), [("language", 14), ("language+projector", 15), ("language+projector+vision", 27)]
)
def test_adapted_layers_are_those_asked_for(fresh: Callable[..., LoadedModel], targets: str, count: int) -> None:
    model, names = attach(fresh().model, LoraSettings.model_validate({"targets": targets}))
    assert len(names) == count
    assert any("vision_tower" in name for name in names) == ("vision" in targets)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert {
        re.sub(r"\.lora_[AB]\.default\.weight$", "", n).removeprefix("base_model.model.") for n in trainable
    } == set(names)


def test_lora_is_float32_on_a_bfloat16_checkpoint(fresh: Callable[..., LoadedModel]) -> None:
    model, _ = attach(fresh(precision="bfloat16").model, LoraSettings())
    for parameter in model.parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16)


def test_a_model_without_the_layers(fresh: Callable[..., LoadedModel]) -> None:
    loaded = fresh()
    del loaded.model.model.language_model.layers[1].mlp.up_proj
    with pytest.raises(MismatchError, match="13 layers of the language part found, 14 expected"):
        attach(loaded.model, LoraSettings())


def test_saving_and_loading_is_exact(
    fresh: Callable[..., LoadedModel], tuned: Callable[..., Any], tmp_path: Path
) -> None:
    loaded = fresh()
    bare = logits(loaded)
    adapted, card = tuned(loaded, targets="language+projector")
    adapters.save(tmp_path / "a", adapted.model, card)
    again = adapters.load(tmp_path / "a", fresh())
    tuned = logits(again)
    with torch.no_grad():
        assert torch.equal(tuned, logits(loaded))
    assert not torch.allclose(tuned, bare, atol=1e-2)
    with again.model.disable_adapter():
        assert torch.equal(logits(again), bare)
    assert torch.equal(logits(again), tuned)
    assert AdapterCard.read(tmp_path / "a") == card


def test_rank_stabilised_scaling_is_kept_and_computed_alike(
    fresh: Callable[..., LoadedModel], tuned: Callable[..., Any], tmp_path: Path
) -> None:
    """With the replaced layers, those of peft, and merged."""
    adapted, card = tuned(fresh(), rank=4, rank_stabilised=True)
    adapters.save(tmp_path / "a", adapted.model, card)
    again = adapters.load(tmp_path / "a", fresh())
    layer = next(module for module in again.model.modules() if hasattr(module, "lora_A"))
    assert layer.scaling["default"] == pytest.approx(8 / 4**0.5)
    stock = logits(again)
    with fused(again.model, adapters.paligemma(again.model).language_model, softcap=False):
        torch.testing.assert_close(logits(again), stock, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(adapters.merged(again)), stock, rtol=1e-4, atol=1e-4)
    assert "rank-stabilised" in (tmp_path / "a/README.md").read_text()


def test_folder_holds_no_pickle_and_names_no_machine(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "cxrreport.json",
        "README.md",
    }
    assert json.loads((saved / "adapter_config.json").read_text())["inference_mode"] is True


def test_model_card_states_terms_and_metrics(saved: Path) -> None:
    text = (saved / "README.md").read_text()
    for part in ("license: gemma", "Gemma Terms of Use", "credentialed access", "validation_loss: 1.5000"):
        assert part in text
    card = AdapterCard.read(saved).model_copy(update={"synthetic": True})
    assert "phantoms" in model_card(card)
    assert "license: gemma" not in model_card(card)


def test_another_checkpoint(fresh: Callable[..., LoadedModel], saved: Path, checkpoint_folder: Path) -> None:
    with pytest.raises(MismatchError, match="softcap was False in training and is True"):
        adapters.load(saved, fresh(softcap=True))
    other = saved.parent / "other"
    shutil.copytree(checkpoint_folder, other)
    weights = load_file(other / "model.safetensors")
    save_file({n: t + 0.001 for n, t in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MismatchError, match="sha256"):
        adapters.load(saved, fresh(name=str(other)))


def test_other_images_and_prompts(saved: Path) -> None:
    card = AdapterCard.read(saved)
    card.check_images(224, PREPROCESSING)
    with pytest.raises(MismatchError, match="resize was 'squash' in training and is 'pad'"):
        card.check_images(224, PREPROCESSING | {"resize": "pad"})
    with pytest.raises(MismatchError, match="resolution was 224 in training and is 448"):
        card.check_images(448, PREPROCESSING)
    card.check_prompt(PromptSettings())
    with pytest.raises(MismatchError, match="indication was True"):
        card.check_prompt(PromptSettings(indication=False))


def test_incomplete_folders(fresh: Callable[..., LoadedModel], saved: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cxrreport\.json is missing"):
        adapters.load(tmp_path / "absent", fresh())
    weights = saved / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file(dict(list(tensors.items())[1:]), weights)
    with pytest.raises(MismatchError, match="1 matrices are missing, among them language_model"):
        adapters.load(saved, fresh())
    weights.write_bytes(b"\0" * 100)
    with pytest.raises(WeightsError, match="damaged"):
        adapters.load(saved, fresh())
    weights.unlink()
    torch.save(tensors, saved / "adapter_model.bin")
    with pytest.raises(WeightsError, match="pickle"):
        adapters.load(saved, fresh())
    (saved / "cxrreport.json").write_text('{"schema_version": 1}')
    with pytest.raises(WeightsError, match="fingerprint"):
        AdapterCard.read(saved)


@pytest.mark.parametrize(
    "tower", ["vision_tower.vision_model.encoder", "vision_tower.encoder"], ids=["before-4.52", "between"]
)
def test_key_names_from_before_transformers_4_52_load(
    fresh: Callable[..., LoadedModel], tuned: Callable[..., Any], tmp_path: Path, tower: str
) -> None:
    """All three parts; newer files have `model.` before them, and no `vision_model` in the tower's names."""
    adapted, card = tuned(fresh(), targets="language+projector+vision")
    adapters.save(tmp_path, adapted.model, card)
    expected = logits(adapters.load(tmp_path, fresh()))
    path = tmp_path / "adapter_model.safetensors"
    start = "base_model.model."
    old = {
        name.replace(f"{start}model.language_model.layers", f"{start}language_model.model.layers")
        .replace(f"{start}model.vision_tower.encoder", f"{start}{tower}")
        .replace(f"{start}model.multi_modal_projector", f"{start}multi_modal_projector"): tensor
        for name, tensor in load_file(path).items()
    }
    assert not any(name.startswith(f"{start}model.") for name in old)
    save_file(old, path)
    assert torch.equal(logits(adapters.load(tmp_path, fresh())), expected)
