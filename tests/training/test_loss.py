"""The suffix-only loss and its gradients against the stock path: eager attention, logits for every position."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import generation_batch, training_batch
from peft import LoraConfig, get_peft_model
from torch._dynamo.testing import CompileCounter
from torch.nn.functional import cross_entropy
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm

from cxrreport.model import attention
from cxrreport.model.adapters import attach, paligemma
from cxrreport.model.attention import border_mask
from cxrreport.model.checkpoints import load
from cxrreport.model.compat import enable_gradient_checkpointing
from cxrreport.model.fused import _norm, fused, replaced
from cxrreport.model.prompt import IGNORED, PromptLayout
from cxrreport.records import Report
from cxrreport.settings import CheckpointSettings, LoraSettings, PromptSettings
from cxrreport.training.forward import INPUTS, predicting, row_losses, suffix_loss

pytestmark = pytest.mark.stock("transformers", "peft", "accelerate", "torch")

REPORTS = [
    Report(
        indication="cough and fever", findings="The heart is enlarged. No pneumothorax.", impression="Cardiomegaly."
    ),
    Report(findings="The lungs are clear."),
    Report(indication="fever", impression="Small left pleural effusion."),
]


def test_predicting_marks_the_positions_before_suffix_tokens() -> None:
    labels = torch.tensor([[IGNORED, IGNORED, 5, 6, IGNORED], [IGNORED, 7, IGNORED, IGNORED, IGNORED]])
    expected = [[False, True, True, False, False], [True, False, False, False, False]]
    assert predicting(labels).tolist() == expected


def test_per_example_and_per_token_means_by_hand() -> None:
    labels = torch.tensor([[IGNORED, 0, 1], [IGNORED, 1, IGNORED]])
    losses = torch.tensor([2.0, 3.0, 7.0])
    example = suffix_loss(losses, labels, reduction="per-example", normaliser=2)
    token = suffix_loss(losses, labels, reduction="per-token", normaliser=3)
    assert float(example) == pytest.approx(((2 + 3) / 2 + 7) / 2)
    assert float(token) == pytest.approx(12 / 3)


@pytest.mark.parametrize("rows", [1, 150])
def test_losses_in_blocks_equal_cross_entropy_of_all_logits(rows: int) -> None:
    """Value and gradient, one row and more than two blocks, a sure row among them."""
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(8, 500, bias=False).requires_grad_(False)
    states = torch.randn(rows, 8, generator=generator)
    states[0] = 40 * head.weight[3]
    targets = torch.randint(500, (rows,), generator=generator)
    targets[0] = 3
    weights = torch.rand(rows, generator=generator)
    ours, plain = (states.clone().requires_grad_() for _ in range(2))
    with row_losses(head, targets):
        losses = head(ours)
    (losses * weights).sum().backward()
    expected = torch.nn.functional.cross_entropy(head(plain), targets, reduction="none")
    (expected * weights).sum().backward()
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-5, atol=1e-6)
    with torch.no_grad(), row_losses(head, targets):
        assert torch.equal(head(states), losses)
    assert head(states).shape == (rows, 500)


def set_b(model: Any) -> None:
    """At initialisation B is zero, so is every gradient of A, and a comparison of gradients would test nothing."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, 3)])
@pytest.mark.parametrize("softcap", [False, True])
def test_loss_and_gradients_equal_the_stock_path(
    checkpoint_folder: Path, checkpointing: bool, fast: bool, rows: slice, softcap: bool
) -> None:
    """On batches of different lengths; `fast` is the path of the trainer, else the single measures by themselves."""
    checkpoint = CheckpointSettings(name=str(checkpoint_folder), precision="float32", device="cpu", softcap=softcap)
    loaded = load(checkpoint, resolution=224)
    layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
    rng = np.random.default_rng(0)
    reports = REPORTS[rows]
    images = [rng.integers(0, 256, (224, 224), dtype=np.uint8) for _ in reports]
    batch = training_batch(layout, reports, images)
    labels = batch["labels"]
    assert len({int(row.sum()) for row in batch["attention_mask"]}) == len(reports)

    config = PaliGemmaConfig.from_pretrained(checkpoint_folder)
    attention.prepare_config(config, softcap=softcap)
    assert (config.text_config.attn_logit_softcapping is None) is not softcap
    stock = PaliGemmaForConditionalGeneration.from_pretrained(
        checkpoint_folder, config=config, attn_implementation="eager", dtype=torch.float32
    )
    ours, names = attach(loaded.model, LoraSettings(rank=4, dropout=0.0))
    stock = get_peft_model(stock, LoraConfig(r=4, lora_alpha=32, target_modules=list(names)))
    for model in (ours, stock):
        set_b(model)
        model.train()

    stock_loss = stock(**batch).loss
    stock_loss.backward()

    if checkpointing:
        enable_gradient_checkpointing(paligemma(ours).language_model)
    inputs: dict[str, Any] = {key: batch[key] for key in INPUTS}
    keep = predicting(labels)
    with torch.no_grad():
        image = ours.get_base_model().model.get_image_features(batch["pixel_values"])
    with fused(ours, paligemma(ours).language_model, softcap=softcap) if fast else nullcontext():
        if fast and not softcap:
            length = int((batch["token_type_ids"][0] == 0).sum())
            padded = not bool(batch["attention_mask"][:, 0].all())
            assert padded == (len(reports) > 1)
            inputs |= {"prefix_length": length, "prefix_padded": padded}
            inputs["attention_mask"] = border_mask(inputs["attention_mask"], length)
            keep = keep[:, length - 1 :]
        targets = labels[labels != IGNORED]
        with row_losses(ours.get_output_embeddings(), targets) if fast and not softcap else nullcontext():
            outputs = ours(**inputs, mm_encoder_outputs={"image": image}, logits_to_keep=keep, use_cache=False)
        assert len(outputs.logits) == len(targets)
        losses = (
            outputs.logits if outputs.logits.ndim == 1 else cross_entropy(outputs.logits, targets, reduction="none")
        )
        loss = suffix_loss(losses, labels, reduction="per-token", normaliser=len(targets))
        loss.backward()

    assert float(loss.detach()) == pytest.approx(float(stock_loss.detach()), rel=1e-6)
    theirs = {name: p.grad for name, p in stock.named_parameters() if p.requires_grad}
    gradients = {name: p.grad for name, p in ours.named_parameters() if p.requires_grad}
    assert gradients.keys() == theirs.keys()
    assert len(gradients) == 28
    for name, gradient in gradients.items():
        assert gradient is not None
        assert gradient.norm() > 1e-6, name
        assert (gradient - theirs[name]).norm() / theirs[name].norm() < 1e-5, name


def test_compiled_layers_give_equal_losses_and_share_one_graph(
    checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lengths change from batch to batch: they may cost one more compilation, and no more after that."""
    loaded = load(CheckpointSettings(name=str(checkpoint_folder), precision="float32", device="cpu"), resolution=224)
    layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
    model, _ = attach(loaded.model, LoraSettings(rank=4, dropout=0.0))
    set_b(model)
    model.train()
    graphs = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=graphs))
    image = np.random.default_rng(0).integers(0, 256, (224, 224), dtype=np.uint8)

    def losses(compiled: bool) -> list[float]:
        found = []
        with fused(model, paligemma(model).language_model, softcap=False, compiled=compiled):
            for words in (1, 3, 9, 20):
                batch = training_batch(layout, [Report(findings="enlarged " * words)], [image])
                length = int((batch["token_type_ids"][0] == 0).sum())
                keep = predicting(batch["labels"])[:, length - 1 :]
                mask = border_mask(batch["attention_mask"], length)
                with torch.no_grad():
                    features = paligemma(model).get_image_features(batch["pixel_values"])
                outputs = model(
                    **{key: batch[key] for key in INPUTS} | {"attention_mask": mask},
                    mm_encoder_outputs={"image": features},
                    logits_to_keep=keep,
                    use_cache=False,
                    prefix_length=length,
                    prefix_padded=False,
                )
                loss = cross_entropy(outputs.logits, batch["labels"][batch["labels"] != IGNORED])
                loss.backward()
                found.append(loss.item())
        return found

    assert losses(compiled=True) == pytest.approx(losses(compiled=False), rel=1e-6)
    assert graphs.frame_count == 4  # a layer and the last one, each for a length and for any length
    assert not any("forward" in vars(module) for module in model.modules())


def test_labels_of_padding_and_prefix_carry_no_loss() -> None:
    labels = torch.tensor([[IGNORED, IGNORED, 1, 0]])
    losses = torch.rand(2)
    padded = torch.cat([labels, torch.full((1, 3), IGNORED)], 1)
    a = suffix_loss(losses, labels, reduction="per-example", normaliser=1)
    b = suffix_loss(losses, padded, reduction="per-example", normaliser=1)
    assert torch.equal(a, b)


def test_replaced_layers_are_restored_and_generation_is_unchanged(checkpoint_folder: Path) -> None:
    loaded = load(CheckpointSettings(name=str(checkpoint_folder), precision="float32", device="cpu"), resolution=224)
    layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
    image = np.random.default_rng(0).integers(0, 256, (224, 224), dtype=np.uint8)
    batch = generation_batch(layout, REPORTS[:2], [image, image])
    model, _ = attach(loaded.model, LoraSettings(rank=4, dropout=0.0))
    set_b(model)
    model.eval()

    def first_logits() -> torch.Tensor:
        options = {"max_new_tokens": 4, "output_logits": True, "return_dict_in_generate": True}
        return torch.stack(model.generate(**batch, **options).logits)

    before = first_logits()
    with model.disable_adapter():
        bare = first_logits()
    with fused(model, paligemma(model).language_model, softcap=False):
        torch.testing.assert_close(first_logits(), before, rtol=1e-4, atol=1e-4)
        with model.disable_adapter():
            torch.testing.assert_close(first_logits(), bare, rtol=1e-4, atol=1e-4)
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.equal(first_logits(), before)
    assert not torch.allclose(before, bare, atol=1e-2)


def test_fused_norm_equals_the_norm_of_transformers() -> None:
    norm = Gemma2RMSNorm(6).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        norm.weight.normal_()
    norm.requires_grad_(False)
    expected = norm(x)
    (expected * torch.arange(6)).sum().backward()
    gradient = x.grad
    x.grad = None
    with replaced(norm, _norm(norm)):
        found = norm(x)
        (found * torch.arange(6)).sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(x.grad, gradient, rtol=1e-5, atol=1e-6)
