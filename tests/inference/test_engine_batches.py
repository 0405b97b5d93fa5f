"""How the engine fills its batches, and what it does when memory is short."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
from generation import NEW, Crowded, engine, widths

from cxrreport.errors import InferenceError
from cxrreport.inference.decoding import engine as engine_module
from cxrreport.model import capacity

pytestmark = pytest.mark.stock("transformers", "peft")


def test_finished_rows_leave_the_batch(loaded, layout, requests, batched, monkeypatch) -> None:
    seen = widths(monkeypatch, loaded)
    engine(loaded, layout, batch_size=len(requests)).generate(requests)
    assert sum(rows for rows, _ in seen) == sum(one.tokens for one in batched)
    steps = [rows for rows, columns in seen if columns == 1]
    assert steps == sorted(steps, reverse=True)


def test_a_waiting_request_takes_the_slot_of_a_finished_one(loaded, layout, requests, batched, monkeypatch) -> None:
    seen = widths(monkeypatch, loaded)
    written = engine(loaded, layout, batch_size=3).generate(requests)
    assert [one.ids for one in written] == [one.ids for one in batched]
    last = max(place for place, (_, columns) in enumerate(seen) if columns > 1)
    assert {rows for rows, columns in seen[:last] if columns == 1} == {3}
    assert sum(rows for rows, _ in seen) == sum(one.tokens for one in batched)


def test_prompts_are_read_a_few_at_a_time(loaded, layout, requests, batched, monkeypatch) -> None:
    longest = max(len(layout.encode_prefix(layout.prefix(request.report)).prefix) for request in requests)
    budget = 2 * (longest + layout.image_tokens)
    monkeypatch.setitem(capacity.READ_AT_ONCE, "cpu", budget)
    seen = widths(monkeypatch, loaded)
    written = engine(loaded, layout, batch_size=len(requests)).generate(requests)
    assert [one.ids for one in written] == [one.ids for one in batched]
    read = [(rows, columns) for rows, columns in seen if columns > 1]
    assert all(rows * columns <= budget for rows, columns in read)
    assert {rows for rows, _ in read} >= {2}


def test_prompts_in_pieces_give_the_same(loaded, layout, requests, batched, monkeypatch) -> None:
    from cxrreport.model import fused

    monkeypatch.setattr(fused, "_PIECE", 7)  # of some twenty positions
    seen: list[int] = []
    mlp = loaded.model.model.language_model.layers[0].mlp
    monkeypatch.setattr(mlp.up_proj, "forward", Counted(mlp.up_proj.forward, seen))
    written = engine(loaded, layout).generate(requests)
    assert [one.ids for one in written] == [one.ids for one in batched]
    assert max(seen) == 7


class Counted:
    """A layer that notes how many positions it is given."""

    def __init__(self, forward, seen: list[int]) -> None:
        self._forward, self._seen = forward, seen

    def __call__(self, x):
        self._seen.append(x.shape[1])
        return self._forward(x)


def test_fewer_slots_where_memory_is_short(loaded, layout, requests, batched, monkeypatch, caplog) -> None:
    config = loaded.model.config.text_config
    a_position = 4 * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    share = capacity.MEMORY_SHARE["cpu"]
    lengths = [layout.image_tokens + len(layout.encode_prefix(layout.prefix(one.report)).prefix) for one in requests]
    monkeypatch.setattr(engine_module, "free_memory", lambda device: 2.5 / share * a_position * (max(lengths) + NEW))
    seen = widths(monkeypatch, loaded)
    written = engine(loaded, layout, batch_size=8).generate(requests)
    assert max(rows for rows, columns in seen if columns == 1) == 2
    assert [one.ids for one in written] == [one.ids for one in batched]
    assert not caplog.records


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    ],
)
def test_out_of_memory_halves_the_batch_with_a_warning(loaded, layout, requests, batched, caplog, error) -> None:
    crowded = Crowded(loaded.model, 2, error)
    one = engine(dataclasses.replace(loaded, model=crowded), layout, batch_size=8)
    with caplog.at_level(logging.WARNING):
        written = one.generate(requests)
    assert [generated.ids for generated in written] == [generated.ids for generated in batched]
    assert one.batch_size == 2
    assert crowded.sizes[:2] == [8, 4]
    assert "a batch of 8 did not fit into memory; continuing with 4" in caplog.text


def test_out_of_memory_for_one_study_is_an_error_with_a_way_out(loaded, layout, requests) -> None:
    crowded = Crowded(loaded.model, 0, torch.OutOfMemoryError("no"))
    with pytest.raises(InferenceError, match=r"not enough memory on cpu for one text; .* set checkpoint\.precision"):
        engine(dataclasses.replace(loaded, model=crowded), layout).generate(requests)


def test_other_errors_of_the_model_pass_through(loaded, layout, requests) -> None:
    crowded = Crowded(loaded.model, 0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        engine(dataclasses.replace(loaded, model=crowded), layout).generate(requests)


def test_output_that_is_not_finite_is_an_error(loaded, layout, requests) -> None:
    class Broken(Crowded):
        def __call__(self, **kwargs):
            output = self._model(**kwargs)
            output.logits[0] = torch.nan
            return output

    broken = Broken(loaded.model, 0, RuntimeError())
    with pytest.raises(InferenceError, match=r"study s\d+: the model's output is not finite"):
        engine(dataclasses.replace(loaded, model=broken), layout).generate(requests)


def test_no_requests_no_results(loaded, layout) -> None:
    assert engine(loaded, layout).generate([]) == []


def test_progress_counts_up_to_all(loaded, layout, requests) -> None:
    told: list[int] = []
    engine(loaded, layout, batch_size=5).generate(requests[:12], told.append)
    assert told == list(range(1, 13))
