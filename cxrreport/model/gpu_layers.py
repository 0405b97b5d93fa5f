"""Layers for a GPU, in place of those of transformers and peft while a model trains or generates.

On a GPU each operation of a step of decoding takes longer to launch than to run, so their number counts: 128 for each
layer and token in the original form with an adapter, 79 merged, 26 here. torch's own kernel computes the norm, weights
are cast once, and nothing is transposed in memory. The forms of `fused` that save passes over memory are for a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.nn.functional import linear, rms_norm

from cxrreport.model.attention import prefix_sdpa
from cxrreport.model.compat import CACHE, rotate_half


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


def layer(module: Any, trained: Callable[..., torch.Tensor], *, last: bool) -> Any:
    """A layer of the language model without gradient: a whole prompt, or one token of each text.

    Args:
        module: `Gemma2DecoderLayer`, whose norms and linear layers may be replaced.
        trained: form for passes with gradient.
        last: only positions that predict a token are computed, see `fused._layer`.
    """
    attention, mlp = module.self_attn, module.mlp

    def forward(
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        prefix_length: int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        if torch.is_grad_enabled():
            return trained(
                hidden_states,
                attention_mask=attention_mask,
                position_embeddings=position_embeddings,
                prefix_length=prefix_length,
                **kwargs,
            )
        first, border = 0, {}
        if prefix_length is not None:
            first = prefix_length - 1 if last else 0
            if not last:
                border = {"prefix_length": prefix_length, "prefix_padded": kwargs.get("prefix_padded", True)}
        states = module.input_layernorm(hidden_states)
        cos, sin = position_embeddings
        query = _rotated(attention.q_proj(states[:, first:]), attention.head_dim, cos[:, first:], sin[:, first:])
        key = _rotated(attention.k_proj(states), attention.head_dim, cos, sin)
        value = attention.v_proj(states).view(*states.shape[:2], -1, attention.head_dim).transpose(1, 2)
        if (cache := kwargs.get(CACHE)) is not None:
            key, value = cache.update(key, value, attention.layer_idx)
        found, _ = prefix_sdpa(attention, query, key, value, attention_mask, scaling=attention.scaling, **border)
        update = module.post_attention_layernorm(attention.o_proj(found.reshape(*found.shape[:2], -1)))
        residual = hidden_states[:, first:] + update
        states = module.pre_feedforward_layernorm(residual)
        update = mlp.down_proj(mlp.act_fn(mlp.gate_proj(states)) * mlp.up_proj(states))
        result: torch.Tensor = residual + module.post_feedforward_layernorm(update)
        return result

    return forward


def _rotated(states: torch.Tensor, head_dim: int, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Apply rotary positions to real[B, L, heads * D] in place, in four operations; returns real[B, heads, L, D]."""
    split = states.view(*states.shape[:2], -1, head_dim).transpose(1, 2)
    half: torch.Tensor = rotate_half(split)  # type: ignore[no-untyped-call]
    return split.mul_(cos.unsqueeze(1)).addcmul_(half, sin.unsqueeze(1))
