"""Layers for a GPU, in place of those of transformers and peft while a model trains or generates.

On a GPU each operation of a step of decoding takes longer to launch than to run, so their number counts: 128 for each
layer and token in the original form with an adapter, 79 merged, 26 here. torch's own kernel computes the norm, weights
are cast once, and nothing is transposed in memory. The layer that calls them is in `fused`, beside the forms for a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.nn.functional import linear, rms_norm


def norm(module: Any) -> Any:
    """X / rms(x) * (1 + weight) by torch's kernel; the factor is made once, as the weight is frozen."""
    gains: dict[torch.dtype, torch.Tensor] = {}

    def gain(dtype: torch.dtype) -> torch.Tensor:
        if isinstance(module.weight, DTensor):  # sharded: whole during a pass only
            return (1.0 + module.weight.float()).to(dtype)
        if dtype not in gains:
            with torch.inference_mode(False), torch.no_grad():
                gains[dtype] = (1.0 + module.weight.float()).to(dtype)
        return gains[dtype]

    def forward(x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, (x.shape[-1],), gain(x.dtype), module.eps)

    return forward


def lora(module: Any, *, constant: bool) -> Any:
    """A linear layer with LoRA in three products.

    Args:
        module: of peft.
        constant: the weights do not change while this form is in use, so they are cast once.
    """
    original = module.forward
    a, b = module.lora_A["default"], module.lora_B["default"]
    dropout, scaling = module.lora_dropout["default"], module.scaling["default"]
    kept: dict[torch.dtype, tuple[torch.Tensor, torch.Tensor]] = {}

    def weights(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        if not constant or torch.is_grad_enabled():
            return a.weight.to(dtype), b.weight.to(dtype)
        if dtype not in kept:
            kept[dtype] = a.weight.to(dtype), b.weight.to(dtype)
        return kept[dtype]

    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if module.disable_adapters or module.merged or args or kwargs:
            result: torch.Tensor = original(x, *args, **kwargs)
            return result
        flat = x.flatten(0, -2)
        out: torch.Tensor = module.base_layer(flat)
        first, second = weights(out.dtype)
        low = linear(dropout(flat), first).to(out.dtype)
        # The library reads a transposed matrix as it is.
        return torch.addmm(out, low, second.t(), alpha=scaling).view(*x.shape[:-1], -1)

    return forward
