"""Steps of decoding that are recorded once and replayed as CUDA graphs.

A step launches some hundred kernels that each take less time than their launch. A graph launches them as one. It
repeats the same operations on the same memory, so tokens and places are written into tensors that stay where they are,
and each number of texts (a power of two) and width of the cache has a graph of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch.distributed.tensor import DTensor

from cxrreport.inference.decoding.forward import ForwardPasses
from cxrreport.inference.decoding.kv_cache import SlotCache
from cxrreport.inference.decoding.memory import is_out_of_memory
from cxrreport.model.capacity import positions

_LOG = logging.getLogger(__name__)

Recorded = Callable[[], torch.Tensor]
"""A step without arguments; returns the logits, in the same memory each time."""

_TOLERANCE = {torch.float32: 1e-3}
"""Relative difference (Euclidean norm) of a replayed step that is rounding, in other precisions `_COARSE`."""
_COARSE = 0.05


_REFUSED: WeakSet[torch.nn.Module] = WeakSet()
"""Models whose steps cannot be replayed."""


def cuda_graph(step: Recorded, pool: Any) -> tuple[Recorded, Any]:
    """Record a step that has been run before, and return what replays it, with the memory pool of its graph.

    Other graphs may share the pool if the logits of one are used before another one is replayed.
    """
    graph = torch.cuda.CUDAGraph()
    # Threads that read images or track the run may use CUDA in the meantime.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        logits = step()

    def replay() -> torch.Tensor:
        graph.replay()
        return logits

    return replay, graph.pool()


def can_be_captured(model: Any, device: torch.device) -> bool:
    """True on CUDA, unless it has failed before or the parameters are gathered from several processes in each pass."""
    if device.type != "cuda" or model in _REFUSED:
        return False
    return not any(isinstance(one, DTensor) for one in model.parameters())


class CapturedSteps:
    """`ForwardPasses.read_tokens` for the slots of one cache, recorded at first use and replayed.

    The first replay of every graph is compared with the step itself. If they differ or recording fails, steps of this
    model run as they are from then on, and a warning says so.

    Args:
        passes: the model, whose weights stay in their memory.
        cache: its slots.
        device: of both.
        capture: records a step.
    """

    def __init__(
        self,
        passes: ForwardPasses,
        cache: SlotCache,
        device: torch.device,
        capture: Callable[[Recorded, Any], tuple[Recorded, Any]] = cuda_graph,
    ) -> None:
        self._passes = passes
        self._cache = cache
        self._capture = capture
        self._inputs = torch.zeros(2, cache.slots, dtype=torch.int64, device=device)
        """Tokens and places of all slots."""
        self._replays: dict[tuple[int, int], Recorded] = {}
        self._pool: Any = None

    def __call__(self, tokens: Sequence[int], places: Sequence[int]) -> torch.Tensor:
        """As `read_tokens`. The logits are valid until the next call."""
        if self._passes.model in _REFUSED:
            return self._passes.read_tokens(tokens, places, self._cache)
        count = len(tokens)
        rows = min(self._cache.slots, 1 << (count - 1).bit_length())
        # Rows without a text write to the first position of a free slot, which the next prompt overwrites.
        inputs = torch.zeros(2, rows, dtype=torch.int64)
        inputs[0, :count], inputs[1, :count] = torch.tensor(tokens), torch.tensor(places)
        self._inputs[:, :rows] = inputs.to(self._inputs.device)
        shape = rows, min(positions(max(places) + 1, "cuda"), self._cache.length)
        logits = self._replays[shape]() if shape in self._replays else self._first(*shape)
        return logits[:count]

    def _first(self, rows: int, width: int) -> torch.Tensor:
        """Run a step of a new shape, and record it for the next ones."""
        tokens, places = self._inputs[:, :rows]
        step = partial(self._passes.step, tokens, places, width, self._cache)
        logits = step()
        try:
            replay, self._pool = self._capture(step, self._pool)
            if reason := self._difference(replay, logits):
                raise _DifferenceError(reason)
        except Exception as error:  # whatever a release of torch does not capture
            if is_out_of_memory(error):
                raise
            _REFUSED.add(self._passes.model)
            self._replays.clear()
            _LOG.warning(
                "steps of decoding cannot be replayed as CUDA graphs (%s: %s); they run one operation at a time, which "
                "gives the same texts and takes longer",
                type(error).__name__,
                " ".join(str(error).split())[:200],
            )
            return step()
        self._replays[rows, width] = replay
        return logits

    def _difference(self, replay: Recorded, logits: torch.Tensor) -> str:
        """What a replay computes or stores otherwise than the step that has just been run; empty if nothing."""
        stored = self._cache.stored_by_step()
        self._cache.clear_step()
        tolerance = _TOLERANCE.get(stored.dtype, _COARSE)
        found = {"logits": (replay(), logits), "keys and values": (self._cache.stored_by_step(), stored)}
        for what, (one, other) in found.items():
            if not float((one.float() - other.float()).norm()) <= tolerance * float(other.float().norm()):
                return f"{what} differ from those of the step"
        return ""


class _DifferenceError(Exception):
    """A replay does not do what was recorded."""
