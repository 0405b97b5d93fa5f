"""What a part of a model would allocate and multiply, counted on torch's meta device where nothing is."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from cxrreport.model.compat import FlopCounterMode, TorchDispatchMode, flash_attention, storage_key, tree_leaves


@dataclass(frozen=True, slots=True)
class Count:
    """Of one part of the step: bytes kept for the backward pass, bytes on top of them at the worst, operations."""

    kept: int
    forward_extra: int
    backward_extra: int
    forward: float
    backward: float


def counted(run: Callable[[], torch.Tensor]) -> Count:
    """Run a part forward, and backward where it can, on the meta device."""
    operations = FlopCounterMode(display=False)
    with _Live() as live:
        with operations:
            out = run()
        forward, kept, peak = operations.get_total_flops(), live.now, live.peak
        if not out.requires_grad:
            return Count(kept, peak - kept, 0, forward, 0)
        live.peak = live.now
        gradient = torch.empty_like(out)
        with operations:
            torch.autograd.backward(out, gradient)
        # What is left are the gradients of parameters, which are counted by themselves.
        left = live.now - gradient.nbytes - out.nbytes
        return Count(kept, peak - kept, live.peak - kept - left, forward, operations.get_total_flops())


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that were made under it and still live, and their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {storage_key(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage_key(tensor)
                if key not in given and key not in self._known:
                    self._known.add(key)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._freed, key, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class FlashAttention(TorchFunctionMode):
    """Attention as the kernels of CPU and GPU run it; on the meta device torch would form all of its weights.

    Args:
        wide: in float32, whatever comes in.
    """

    def __init__(self, wide: bool) -> None:
        self._wide = wide

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = (each.float() for each in args) if self._wide else args
        groups = query.shape[1] // key.shape[1]
        if groups > 1:
            key, value = (each.unsqueeze(2).expand(-1, -1, groups, -1, -1).flatten(1, 2) for each in (key, value))
        return flash_attention(query, key, value)
