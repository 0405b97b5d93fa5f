"""Side effects of transformers and peft in training, and that they do not occur here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import training_batch
from peft import LoraConfig, get_peft_model

from cxrreport.model.adapters import attach, paligemma
from cxrreport.model.checkpoints import load
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Report
from cxrreport.settings import CheckpointSettings, LoraSettings, PromptSettings, TrainSettings
from cxrreport.training.finetune import train

REPORT = Report(indication="cough", findings="The heart is enlarged.")


@pytest.fixture
def loaded(checkpoint_folder: Path) -> Any:
    return load(CheckpointSettings(name=str(checkpoint_folder), precision="float32", device="cpu"), resolution=224)


def one_batch(loaded: Any) -> dict[str, torch.Tensor]:
    layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
    return training_batch(layout, [REPORT], [np.random.default_rng(0).integers(0, 256, (224, 224), dtype=np.uint8)])


def test_the_frozen_vision_tower_runs_once_per_batch_without_backward_pass(
    settings: Callable[..., TrainSettings], manifest: Any
) -> None:
    """With checkpointing in stock transformers it runs twice, and its outputs require a gradient for nothing."""
    given = settings(max_steps=2, batch_size=2, accumulation=1, gradient_checkpointing=True)
    manifest.sizes = {split: 11 if split.value == "train" else 0 for split in manifest.sizes}
    seen: list[bool] = []

    def watch(module: Any, _: Any, output: Any) -> None:
        if type(module).__name__ == "SiglipVisionModel":
            seen.append(output.last_hidden_state.requires_grad or torch.is_grad_enabled())

    hook = torch.nn.modules.module.register_module_forward_hook(watch)
    try:
        train(given, manifest, log=lambda *_: None, progress=lambda *_: None)
    finally:
        hook.remove()
    assert seen == [False, False]


def test_image_features_are_not_scaled(loaded: Any) -> None:
    """Older versions divided them by the root of the width, and multiplied again."""
    batch = one_batch(loaded)
    inner = paligemma(loaded.model)
    given: list[torch.Tensor] = []
    hook = inner.language_model.layers[0].register_forward_pre_hook(
        lambda _, args, kwargs: given.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    with torch.no_grad():
        loaded.model(**{name: tensor for name, tensor in batch.items() if name != "labels"})
        features = inner.multi_modal_projector(inner.vision_tower(batch["pixel_values"]).last_hidden_state)
    hook.remove()
    torch.testing.assert_close(given[0][0, : loaded.image_tokens], features[0])


def test_without_a_suffix_there_are_no_labels(loaded: Any) -> None:
    """The processor gives labels that are all ignored, and their mean is NaN."""
    layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
    batch = layout.collate_generation([layout.encode_prefix(layout.prefix(REPORT))])
    assert batch.keys() == {"input_ids", "attention_mask", "token_type_ids"}


def test_new_adapters_have_zero_gradients_for_a(loaded: Any) -> None:
    """Why comparisons of gradients set B first."""
    model, _ = attach(loaded.model, LoraSettings(rank=4, dropout=0.0))
    model(**one_batch(loaded)).loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(not grad.any() for name, grad in gradients.items() if "lora_A" in name)
    assert all(grad.any() for name, grad in gradients.items() if "lora_B" in name)


def test_bare_target_names_would_adapt_the_vision_tower(loaded: Any, checkpoint_folder: Path) -> None:
    bare = get_peft_model(loaded.model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    assert any("vision_tower" in name for name, _ in bare.named_parameters() if "lora_" in name)
    fresh = load(CheckpointSettings(name=str(checkpoint_folder), precision="float32", device="cpu"), resolution=224)
    ours, _ = attach(fresh.model, LoraSettings(rank=4))
    assert not any("vision_tower" in name for name, _ in ours.named_parameters() if "lora_" in name)


def test_worker_processes_do_not_change_the_loss(
    settings: Callable[..., TrainSettings], manifest: Any, tmp_path: Path
) -> None:
    losses = []
    for workers in (0, 1):
        lines: list[float] = []
        given = settings(max_steps=3, workers=workers, augment=True, output=tmp_path / str(workers))
        train(given, manifest, log=lambda v, _, k=lines: k.append(v.get("loss", 0.0)), progress=lambda *_: None)
        losses.append(lines)
    assert losses[0] == losses[1]
    assert len(losses[0]) >= 3
