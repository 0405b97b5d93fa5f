"""Memory and operations of a part of a model, counted on torch's meta device, which allocates nothing."""

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
    """Costs of one part of a training step.

    Args:
        kept: bytes that are kept for the backward pass.
        forward_extra: peak of the bytes beyond `kept` in the forward pass.
        backward_extra: the same in the backward pass.
        forward: operations of the forward pass.
        backward: operations of the backward pass.
    """

    kept: int
    forward_extra: int
    backward_extra: int
    forward: float
    backward: float


def counted(run: Callable[[], torch.Tensor]) -> Count:
    """Count a part: its forward pass, and its backward pass if the result requires gradients."""
    operations = FlopCounterMode(display=False)
    with _LiveBytes() as live:
        with operations:
            out = run()
        forward, kept, peak = operations.get_total_flops(), live.now, live.peak
        if not out.requires_grad:
            return Count(kept, peak - kept, 0, forward, 0)
        live.peak = live.now
        gradient = torch.empty_like(out)
        with operations:
            torch.autograd.backward(out, gradient)
        # The rest are the gradients of parameters, which are counted separately.
        left = live.now - gradient.nbytes - out.nbytes
        return Count(kept, peak - kept, live.peak - kept - left, forward, operations.get_total_flops())


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that were created within the block and still exist, and their peak."""

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
    """Attention as the kernels of CPU and GPU compute it; on the meta device torch would allocate all of its weights.

    Args:
        wide: compute in float32.
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
