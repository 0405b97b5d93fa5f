"""Steps of decoding that are replayed. A CPU has no graphs: a stand-in records operations and repeats them, tensors and
sizes as they were, so that whatever the host would have to do again at every step shows as another text.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from generation import engine
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cxrreport.inference.decoding import captured_steps
from cxrreport.inference.decoding import engine as engine_module
from cxrreport.inference.decoding.captured_steps import CapturedSteps
from cxrreport.inference.decoding.forward import ForwardPasses
from cxrreport.inference.decoding.kv_cache import SlotCache

pytestmark = pytest.mark.stock("transformers", "peft")
Recorded = Callable[[], torch.Tensor]


class Recording(TorchDispatchMode):
    """Keeps every operation with its arguments and results, as a graph keeps kernels with their addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        assert func is not torch.ops.aten._local_scalar_dense.default, "the host waits for a value of the device"
        self.operations.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        for func, args, kwargs, out in self.operations:
            again = func(*args, **kwargs)
            for one, other in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if (
                    isinstance(one, torch.Tensor)
                    and one.untyped_storage().data_ptr() != other.untyped_storage().data_ptr()
                ):
                    one.copy_(other)


class StandIn:
    """In place of `cuda_graph`; `recorded` are the widths and rows of each graph, and `replayed` counts replays."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, step: Recorded, pool: Any) -> tuple[Recorded, tuple[int, int]]:
        assert pool == (None if not self.recorded else (0, 1))
        self.recorded += 1
        with Recording() as recording:
            logits = step()

        def replay() -> torch.Tensor:
            self.replayed += 1
            recording.replay()
            return logits

        return replay, (0, 1)


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Let the engine record its steps with a stand-in."""

    def use(capture: Any) -> None:
        monkeypatch.setattr(engine_module, "can_be_captured", lambda model, device: True)
        monkeypatch.setattr(engine_module, "CapturedSteps", lambda *given: CapturedSteps(*given, capture=capture))

    return use


@pytest.mark.parametrize("batch_size", [1, 3, 5, 8])
def test_replayed_steps_write_the_same_texts(
    loaded, layout, requests, batched, captured, caplog: pytest.LogCaptureFixture, monkeypatch, batch_size: int
) -> None:
    graphs = StandIn()
    captured(graphs)
    eager: list[int] = []
    step = ForwardPasses.step
    monkeypatch.setattr(ForwardPasses, "step", lambda *given: (eager.append(1), step(*given))[1])
    written = engine(loaded, layout, batch_size=batch_size).generate(requests)
    assert [one.ids for one in written] == [one.ids for one in batched]
    assert [one.mean_logprob for one in written] == pytest.approx([one.mean_logprob for one in batched], abs=1e-5)
    assert not caplog.records
    assert len(eager) == 2 * graphs.recorded  # once by itself, once to be recorded
    assert graphs.recorded <= (batch_size - 1).bit_length() + 1  # one width
    assert graphs.replayed > 2 * graphs.recorded


def test_soft_capped_texts_are_the_same(fresh_loaded, layout, requests, captured) -> None:
    model = dataclasses.replace(fresh_loaded, softcap=True)
    for layer in model.model.model.language_model.layers:
        layer.self_attn.attn_logit_softcapping = 2.0
    model.model.set_attn_implementation({"text_config": "eager"})
    expected = [one.ids for one in engine(model, layout).generate(requests)]
    captured(graphs := StandIn())
    assert [one.ids for one in engine(model, layout).generate(requests)] == expected
    assert graphs.replayed


@pytest.fixture(autouse=True)
def none_refused() -> Iterator[None]:
    yield
    captured_steps._REFUSED.clear()


def _fails(step: Recorded, pool: Any) -> Any:
    raise RuntimeError("operation not permitted when stream is capturing")


def _forgets(step: Recorded, pool: Any) -> Any:
    """As a graph that has been recorded over other memory."""
    logits = step()
    return lambda: logits, (0, 1)


def _differs(step: Recorded, pool: Any) -> Any:
    return lambda: step() * 1.1, (0, 1)


@pytest.mark.parametrize(
    ("capture", "reason"),
    [
        (_fails, "RuntimeError: operation not permitted"),
        (_forgets, "keys and values differ"),
        (_differs, "logits differ"),
    ],
)
def test_graphs_that_fail_or_differ_are_not_used(
    loaded, layout, requests, batched, captured, caplog: pytest.LogCaptureFixture, capture: Any, reason: str
) -> None:
    captured(capture)
    with caplog.at_level(logging.WARNING):
        written = engine(loaded, layout, batch_size=3).generate(requests)
    assert [one.ids for one in written] == [one.ids for one in batched]
    (record,) = caplog.records
    assert reason in record.getMessage() and "gives the same texts" in record.getMessage()


def test_memory_that_runs_out_halves_the_batch(loaded, layout, requests, batched, captured) -> None:
    def crowded(step: Recorded, pool: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    captured(crowded)
    one = engine(loaded, layout, batch_size=8)
    monkey = StandIn()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one, "_halve_batch", lambda study: (captured(monkey), type(one)._halve_batch(one, study))[1])
        written = one.generate(requests)
    assert one.batch_size == 4
    assert [one.ids for one in written] == [one.ids for one in batched]


class OnOneDevice(TorchDispatchMode):
    """Refuses operations that take tensors from one device to another."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        parts = [one for one in tree_leaves((args, kwargs, out)) if isinstance(one, torch.Tensor) and one.ndim]
        assert {one.device.type for one in parts} <= {"meta"}, func
        return out


def test_a_step_reads_nothing_on_the_host_and_copies_nothing_from_it(fresh_loaded, layout) -> None:
    """On the meta device, which has no values."""
    model = fresh_loaded.model.to("meta")
    moved = dataclasses.replace(fresh_loaded, model=model, device=torch.device("meta"))
    cache = SlotCache(4, 64, layers=model.config.text_config.num_hidden_layers)
    inputs = torch.zeros(2, 4, dtype=torch.int64, device="meta")
    with torch.inference_mode(), OnOneDevice():
        logits = ForwardPasses(moved, layout).step(*inputs, 64, cache)
    assert logits.shape == (4, model.config.text_config.vocab_size)


def test_a_sharded_model_and_a_cpu_are_not_captured(loaded) -> None:
    assert not captured_steps.can_be_captured(loaded.model, torch.device("cpu"))
    assert captured_steps.can_be_captured(loaded.model, torch.device("cuda"))
