"""The same arithmetic with fewer passes over memory, for the length of a training run.

On a CPU a small model spends a third of its step in element-wise passes: LoRA as peft writes it makes two temporaries
of the layer's output, and the root mean square norm as transformers writes it eight of its input. Both are replaced by
forms that round no differently in kind: results agree with the originals to float32 rounding, and the tests hold them
to that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm, rotate_half

from cxrreport.model.attention import prefix_sdpa


@contextmanager
def fused(model: Any, language: Any, *, softcap: bool, compiled: bool = False) -> Iterator[None]:
    """Run parts of `model` in their fused forms for the length of the block.

    Args:
        model: with or without LoRA.
        language: its language model, a `Gemma2Model`.
        softcap: with soft-capping attention is eager, and the last layer stays as it is.
        compiled: compile the layers of the language model, whose norms and LoRA are then left to the compiler.
    """
    changed: list[torch.nn.Module] = []
    for module in model.modules():
        if compiled:
            break
        if isinstance(module, LoraLinear) and module.active_adapters == ["default"] and not module.lora_variant:
            _replace(module, _lora(module))
        elif isinstance(module, Gemma2RMSNorm) and not module.weight.requires_grad:
            _replace(module, _norm(module))
        else:
            continue
        changed.append(module)
    if not softcap:
        last = language.layers[-1]
        _replace(last, _last_layer(last))
        changed.append(last)
    if compiled:
        for layer in language.layers:
            _replace(layer, torch.compile(layer.forward))
            changed.append(layer)
    try:
        yield
    finally:
        for module in set(changed):
            del module.forward  # the instance's; the class's shows again


def _replace(module: torch.nn.Module, forward: Any) -> None:
    module.forward = forward


def _lora(module: Any) -> Any:
    original = module.forward
    a, b = module.lora_A["default"], module.lora_B["default"]
    dropout, scaling = module.lora_dropout["default"], module.scaling["default"]

    def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if module.disable_adapters or module.merged or args or kwargs:
            result: torch.Tensor = original(x, *args, **kwargs)
            return result
        flat = x.flatten(0, -2)
        out: torch.Tensor = module.base_layer(flat)
        low = a(dropout(flat))
        # In place: nothing of the backward pass needs the output of a linear layer whose weight is frozen.
        out.addmm_(low.to(out.dtype), b.weight.to(out.dtype).t(), alpha=scaling)
        return out.view(*x.shape[:-1], -1)

    return forward


def _norm(module: Any) -> Any:
    apply: Any = _FrozenNorm.apply

    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = apply(x, module.weight, module.eps)
        return result

    return forward


class _FrozenNorm(torch.autograd.Function):
    """x / rms(x) * (1 + weight) in float32, gradient for x alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.float()
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        gain = 1.0 + weight.float()
        ctx.save_for_backward(x, scale, gain)
        out: torch.Tensor = (wide * scale).mul_(gain).to(x.dtype)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, scale, gain = ctx.saved_tensors
        wide = x.float()
        inner = gradients[0].float() * gain
        # d/dx of x s(x) with s = (mean x^2 + eps)^(-1/2): s g - s^3 x mean(x g).
        along = (wide * inner).mean(-1, keepdim=True).mul_(scale.square())
        return inner.addcmul_(wide, along, value=-1.0).mul_(scale).to(x.dtype), None, None


def _last_layer(layer: Any) -> Any:
    """Only positions that predict suffix tokens are needed of the last layer; of the others, keys and values alone.

    It also does without gradient checkpointing: for so few positions there is little to recompute.
    """
    original, attention = layer.forward, layer.self_attn

    def forward(
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        prefix_length: int | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        if prefix_length is None or past_key_values is not None:  # generation while training, for validation
            full: torch.Tensor = original(
                hidden_states,
                attention_mask=attention_mask,
                position_embeddings=position_embeddings,
                prefix_length=prefix_length,
                past_key_values=past_key_values,
                **kwargs,
            )
            return full
        first = prefix_length - 1
        states = layer.input_layernorm(hidden_states)
        cos, sin = position_embeddings
        query = _rotated(attention.q_proj(states[:, first:]), attention.head_dim, cos[:, first:], sin[:, first:])
        key = _rotated(attention.k_proj(states), attention.head_dim, cos, sin)
        value = attention.v_proj(states).view(*states.shape[:2], -1, attention.head_dim).transpose(1, 2)
        attended, _ = prefix_sdpa(attention, query, key, value, attention_mask[:, :, first:], scaling=attention.scaling)
        attended = attention.o_proj(attended.reshape(*attended.shape[:2], -1))
        residual = hidden_states[:, first:] + layer.post_attention_layernorm(attended)
        update = layer.mlp(layer.pre_feedforward_layernorm(residual))
        result: torch.Tensor = residual + layer.post_feedforward_layernorm(update)
        return result

    return forward


def _rotated(states: torch.Tensor, head_dim: int, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions onto real[B, L, heads * D]; real[B, heads, L, D]."""
    split = states.view(*states.shape[:2], -1, head_dim).transpose(1, 2)
    half: torch.Tensor = rotate_half(split)  # type: ignore[no-untyped-call]
    return split * cos.unsqueeze(1) + half * sin.unsqueeze(1)
