"""The forms for a GPU, run on the CPU: what they compute, and how many operations a step of decoding takes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cxrreport.inference.decoding import Engine, Request
from cxrreport.inference.decoding.forward import ForwardPasses
from cxrreport.inference.decoding.kv_cache import SlotCache
from cxrreport.model import adapters, self_check
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.fused import fused, replaced
from cxrreport.model.prompt import PromptLayout
from cxrreport.records import Report
from cxrreport.settings import PromptSettings

Make = Callable[..., Any]
MOST = 30
_ONE_KERNEL = {torch.nn.functional.rms_norm, torch.rms_norm, torch.nn.functional.scaled_dot_product_attention}
"""What CUDA computes in one launch, and a CPU or the meta device in several."""
_NO_LAUNCH = {
    *("view", "_unsafe_view", "t", "transpose", "slice", "select", "unsqueeze", "squeeze", "expand", "detach"),
    *("alias", "unbind", "permute", "as_strided", "split", "chunk", "_reshape_alias", "reshape", "lift_fresh", "empty"),
}


class Launches(TorchDispatchMode):
    """Operations that start a kernel, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.whole = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not self.whole and name not in _NO_LAUNCH:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class OneKernel(TorchFunctionMode):
    """Counts a function of `_ONE_KERNEL` once, whatever it is made of here."""

    def __init__(self, launches: Launches) -> None:
        super().__init__()
        self._launches = launches

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func not in _ONE_KERNEL or self._launches.whole:
            return func(*args, **(kwargs or {}))
        self._launches.counts[func.__name__] += 1
        self._launches.whole = True
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self._launches.whole = False


@contextmanager
def gpu_forms(loaded: LoadedModel, **options: Any) -> Iterator[Any]:
    language = adapters.paligemma(loaded.model).language_model
    with fused(loaded.model, language, softcap=False, device="cuda", **options):
        yield language


def operations(loaded: LoadedModel, device: str) -> list[Counter[str]]:
    """Operations of each layer of the language model in one step of decoding of three texts."""
    model = loaded.model.to(device)
    moved = replace(loaded, model=model, device=torch.device(device))
    layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
    cache = SlotCache(3, 64, layers=model.config.text_config.num_hidden_layers)
    found: list[Counter[str]] = []

    def counting(forward: Any, *args: Any, **kwargs: Any) -> Any:
        launches = Launches()
        with OneKernel(launches), launches:
            result = forward(*args, **kwargs)
        found.append(launches.counts)
        return result

    passes = ForwardPasses(moved, layout)
    with gpu_forms(moved, constant=True) as language, ExitStack() as stack, torch.no_grad():
        for _ in range(2):  # weights are cast in the first step
            passes.read_tokens([5, 6, 7], [20, 30, 40], cache)
        for layer in language.layers:
            stack.enter_context(replaced(layer, partial(counting, layer.forward)))
        passes.read_tokens([5, 6, 7], [21, 31, 41], cache)
    return found


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_merged_layer_takes_at_most_thirty_operations_a_token(
    fresh: Make, tuned: Make, device: str, precision: str
) -> None:
    loaded = adapters.merged(tuned(fresh(precision=precision))[0])
    counts = operations(loaded, device)
    assert len(counts) == loaded.model.config.text_config.num_hidden_layers
    assert all(0 < sum(one.values()) <= MOST for one in counts), counts
    assert counts[0]["rms_norm"] == 4
    assert counts[0]["scaled_dot_product_attention"] == 1
    assert not {"_to_copy", "clone", "contiguous", "copy"} & counts[0].keys()  # no casts and no copies


def test_an_adapter_adds_two_products_to_each_of_its_layers_and_no_casts(fresh: Make, tuned: Make) -> None:
    merged, adapted = (
        operations(make(tuned(fresh(precision="bfloat16"))[0]), "cpu")[0]
        for make in (adapters.merged, lambda loaded: loaded)
    )
    assert sum(adapted.values()) - sum(merged.values()) == 2 * 7
    assert not {"_to_copy", "clone", "copy"} & adapted.keys()


@pytest.mark.parametrize("merge", [False, True])
def test_they_compute_what_transformers_computes(
    fresh: Make, tuned: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, merge: bool
) -> None:
    """The self-check: a prompt, a token, and a training batch with its gradients, in float32."""
    monkeypatch.setattr(self_check, "_TOLERANCE", {True: (1e-5, 1e-4)})
    loaded = tuned(fresh())[0]
    loaded = adapters.merged(loaded) if merge else loaded
    with caplog.at_level(logging.WARNING), gpu_forms(loaded):
        pass
    assert "self-check" not in caplog.text


def test_texts_are_those_of_the_forms_for_a_cpu(
    fresh: Make, tuned: Make, monkeypatch: pytest.MonkeyPatch, generation_checkpoint_folder: Any
) -> None:
    import numpy as np

    loaded = tuned(fresh(name=str(generation_checkpoint_folder)))[0]
    layout = PromptLayout(loaded.tokenizer, PromptSettings(), loaded.image_tokens)
    random = np.random.default_rng(0)
    requests = [
        Request(
            study_id=str(n),
            images=(random.integers(0, 256, (224, 224), dtype=np.uint8),),
            report=Report(indication=text),
        )
        for n, text in enumerate(("", "cough", "fever and cough"))
    ]

    def texts(loaded: LoadedModel) -> list[tuple[int, ...]]:
        return [one.ids for one in Engine(loaded, layout, batch_size=2, max_new_tokens=12).generate(requests)]

    expected = texts(loaded)
    monkeypatch.setattr(Engine, "_fused", lambda self: gpu_forms(self._loaded, constant=True))
    assert texts(loaded) == expected
    assert texts(adapters.merged(loaded)) == expected


def test_weights_that_change_are_not_kept(fresh: Make, tuned: Make) -> None:
    """Validation during training runs the same layers between updates."""
    loaded = tuned(fresh())[0]
    layer = adapters.paligemma(loaded.model).language_model.layers[0].self_attn.q_proj
    states = torch.randn(1, 3, layer.in_features)
    with torch.no_grad(), gpu_forms(loaded):
        before = layer(states)
        layer.lora_B["default"].weight.add_(1.0)
        assert not torch.allclose(layer(states), before)
