"""Replaced layers that give wrong results are found before the first use, and stock layers run instead."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import numpy as np
import pytest
import torch
from batches import generation_batch, training_batch
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from cxrreport.errors import UnsupportedVersionError
from cxrreport.inference.decoding import Engine, Request
from cxrreport.model import attention, compat, fused, self_check
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Report
from cxrreport.settings import Beam, Decoding, PromptSettings

pytestmark = pytest.mark.stock("transformers", "peft", "torch")

Fresh = Callable[..., LoadedModel]

IMAGES = [np.random.default_rng(seed).integers(0, 256, (224, 224), dtype=np.uint8) for seed in range(3)]
REPORTS = [Report(indication="cough and fever"), Report(), Report(indication="chest pain, fever and cough")]


def texts(loaded: LoadedModel, decoding: Decoding | None = None) -> list[tuple[int, ...]]:
    layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
    requests = [
        Request(study_id=f"s{number}", images=(image,), report=report)
        for number, (image, report) in enumerate(zip(IMAGES, REPORTS, strict=True))
    ]
    engine = Engine(loaded, layout, batch_size=2, max_new_tokens=8, decoding=decoding)
    engine._choice._forbidden[:, layout.eos_id] = True  # all texts get eight tokens
    engine._choice.suppressed[False].append(layout.eos_id)
    return [one.ids for one in engine.generate(requests)]


def stock_texts(loaded: LoadedModel) -> list[tuple[int, ...]]:
    """From `generate` of transformers with eager attention."""
    layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
    suppressed = [*layout.suppressed(int(loaded.model.config.text_config.vocab_size)), layout.eos_id]
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "suppress_tokens": suppressed}
    found = []
    with compat.attention_set_to("eager", core(loaded).language_model.config):
        for image, report in zip(IMAGES, REPORTS, strict=True):
            batch = generation_batch(layout, [report], [image])
            ids = loaded.model.generate(**batch, **options)[0, batch["input_ids"].shape[1] :]
            found.append(tuple(ids.tolist()))
    return found


def core(loaded: LoadedModel) -> Any:
    return getattr(loaded.model, "get_base_model", lambda: loaded.model)().model


def training(loaded: LoadedModel) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of a batch within `fused`."""
    layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
    batch = training_batch(layout, [Report(indication="cough", findings="The heart is enlarged.")] * 2, IMAGES[:2])
    length = int((batch["token_type_ids"][0] == 0).sum())
    labels = batch.pop("labels")[:, length:]
    batch["attention_mask"] = attention.border_mask(batch["attention_mask"], length)
    with fused.fused(loaded.model, core(loaded).language_model, softcap=False):
        logits = loaded.model(**batch, prefix_length=length, prefix_padded=False, use_cache=False).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten())
        gradients = torch.autograd.grad(loss, [p for p in loaded.model.parameters() if p.requires_grad])
    return float(loss.detach()), list(gradients)


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    with caplog.at_level(logging.WARNING, logger="cxrreport"):
        yield lambda: [record.getMessage() for record in caplog.records]


def blind_layer(layer: Any, *, last: bool, gpu: bool) -> Any:
    """A new token does not attend to the prompt."""
    original = RIGHT_LAYER(layer, last=last, gpu=gpu)

    def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
        if kwargs.get("prefix_length") is None:
            cache, kwargs[compat.CACHE] = kwargs[compat.CACHE], None
            cache.update(*[torch.zeros(1, 2, 1, 8)] * 2, layer.self_attn.layer_idx)
            kwargs["attention_mask"] = None
        result: torch.Tensor = original(*args, **kwargs)
        return result

    return forward


def raising_layer(_layer: Any, *, last: bool, gpu: bool) -> Any:
    def forward(*_: Any, **__: Any) -> torch.Tensor:
        raise TypeError("forward() got an unexpected keyword argument 'states'")

    return forward


def forgetful_layer(layer: Any, *, last: bool, gpu: bool) -> Any:
    """Keys and values are not written to the given cache."""
    original, cache = RIGHT_LAYER(layer, last=last, gpu=gpu), DynamicCache()

    def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
        if kwargs.get(compat.CACHE) is not None:
            kwargs[compat.CACHE] = cache
        result: torch.Tensor = original(*args, **kwargs)
        return result

    return forward


RIGHT_LAYER = fused._layer


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (blind_layer, "states differ by"),
        (raising_layer, "a pass fails (TypeError: forward() got an unexpected keyword argument 'states')"),
        (forgetful_layer, "2 layers do not store keys and values once per pass (of two: {})"),
    ],
)
def test_with_broken_layers_texts_are_those_of_stock(
    fresh: Fresh, tuned: Any, monkeypatch: pytest.MonkeyPatch, warned: Any, layer: Any, reason: str, adapted: bool
) -> None:
    loaded = tuned(fresh())[0] if adapted else fresh()
    expected = stock_texts(loaded)
    monkeypatch.setattr(fused, "_layer", layer)
    assert texts(loaded) == expected
    assert texts(loaded) == expected
    beams = texts(loaded, Beam(beams=2))
    (message,) = warned()  # once
    assert reason in message
    monkeypatch.undo()
    self_check._PROVEN.clear()
    assert texts(loaded, Beam(beams=2)) == beams
    assert f"transformers {metadata.version('transformers')}" in message


def wrong_gradient(module: Any) -> Any:
    """The norm is right, and its gradient half of what it should be."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = type(module).forward(module, x)
        return (out + out.detach()) / 2

    return forward


def wrong_scale(module: Any) -> Any:
    def forward(x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = module.base_layer(x)
        return out + 2 * module.scaling["default"] * module.lora_B["default"](module.lora_A["default"](x))

    return forward


@pytest.mark.parametrize(
    ("name", "broken", "reason"),
    [
        ("_layer", raising_layer, "a pass fails (TypeError"),
        ("_lora", wrong_scale, "states differ by"),
        ("_norm", wrong_gradient, "gradients differ by"),
    ],
)
def test_with_broken_layers_loss_and_gradients_are_those_of_stock(
    fresh: Fresh, tuned: Any, monkeypatch: pytest.MonkeyPatch, warned: Any, name: str, broken: Any, reason: str
) -> None:
    loaded = tuned(fresh())[0]
    loss, gradients = training(loaded)
    assert warned() == []
    assert self_check._PROVEN.pop(loaded.model) == {True: True}
    monkeypatch.setattr(fused, name, broken)
    found, found_gradients = training(loaded)
    assert found == pytest.approx(loss, rel=1e-6)
    for one, other in zip(found_gradients, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    (message,) = warned()
    assert reason in message
    assert texts(loaded) == stock_texts(loaded)  # validation generates without another check
    assert len(warned()) == 1


def test_broken_masks_are_an_error(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of transformers that do not understand our masks either would write wrong texts."""
    loaded = fresh()
    monkeypatch.setattr(self_check._Prompt, "_additive", lambda _, mask: torch.zeros_like(mask))
    with pytest.raises(UnsupportedVersionError, match=r"self-check of the model: .*; installed are .*transformers"):
        texts(loaded)


@pytest.mark.parametrize("changes", [{}, {"softcap": True}, {"precision": "bfloat16"}])
def test_right_layers_are_used_without_a_warning(fresh: Fresh, tuned: Any, warned: Any, changes: Any) -> None:
    loaded, _ = tuned(fresh(**changes))
    texts(loaded)
    assert self_check._PROVEN[loaded.model] in ({False: True}, {True: True})
    assert warned() == []
    assert not any("forward" in vars(module) for module in loaded.model.modules())
