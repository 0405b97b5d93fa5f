"""The same arithmetic with fewer passes over memory, for the length of a training run or of a batch of texts.

On a CPU a small model spends a third of its step in element-wise passes: LoRA as peft writes it makes two temporaries
of the layer's output, and the root mean square norm as transformers writes it eight of its input. Both are replaced by
forms that round no differently in kind: results agree with the originals to float32 rounding, and the tests hold them
to that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from cxrreport.model.attention import prefix_sdpa
from cxrreport.model.compat import CACHE, Gemma2MLP, Gemma2RMSNorm, SiglipMLP, plain_lora, rotate_half

_PIECE = 512
"""Positions of a prompt or an image that go through a feed-forward layer together."""


@contextmanager
def fused(model: Any, language: Any, *, softcap: bool, compiled: bool = False) -> Iterator[None]:
    """Run parts of `model` in their fused forms for the length of the block.

    Args:
        model: with or without LoRA.
        language: its language model, a `Gemma2Model`.
        softcap: with soft-capping attention is eager, and the layers stay as they are.
        compiled: compile the layers of the language model, whose norms and LoRA are then left to the compiler.
    """
    with ExitStack() as stack:
        for module in model.modules():
            if compiled:
                break
            if plain_lora(module):
                stack.enter_context(replaced(module, _lora(module)))
            elif isinstance(module, Gemma2RMSNorm) and not module.weight.requires_grad:
                stack.enter_context(replaced(module, _norm(module)))
            elif isinstance(module, (Gemma2MLP, SiglipMLP)):
                stack.enter_context(replaced(module, _in_pieces(module)))
        if not softcap:
            for layer in language.layers:
                stack.enter_context(replaced(layer, _layer(layer, last=layer is language.layers[-1])))
        if compiled:
            for layer in language.layers:
                stack.enter_context(replaced(layer, torch.compile(layer.forward)))
        yield


@contextmanager
def replaced(module: torch.nn.Module, forward: Any) -> Iterator[None]:
    """Another `forward` on the instance; afterwards what was there before, as blocks may lie within blocks."""
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


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
        # LoRA's weights are float32 beside a bfloat16 base; without autocast somebody has to bring them together.
        low = torch.nn.functional.linear(dropout(flat), a.weight.to(out.dtype))
        # In place: nothing of the backward pass needs the output of a linear layer whose weight is frozen. Contiguous:
        # autograd then takes the gradient of B as (8, L) x (L, width); its transpose is 10 times slower.
        out.addmm_(low.to(out.dtype), b.weight.to(out.dtype).t().contiguous(), alpha=scaling)
        return out.view(*x.shape[:-1], -1)

    return forward


def _norm(module: Any) -> Any:
    apply: Any = _FrozenNorm.apply

    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = apply(x, module.weight, module.eps)
        return result

    return forward


def _in_pieces(module: Any) -> Any:
    """Without gradient, a few positions at a time, in place: the wide states between the products stay in the cache."""
    original = module.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() or x.device.type != "cpu" or x.shape[1] <= _PIECE:
            result: torch.Tensor = original(x)
            return result
        for piece in torch.split(x, _PIECE, dim=1):  # x is a norm's output, which is read here and nowhere else
            piece.copy_(original(piece))
        return x

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


def _layer(layer: Any, *, last: bool) -> Any:
    """A layer of the language model with less work and less memory where a whole prefix is read.

    Of the last one only positions that predict a token are needed; of the others, keys and values alone. Those are the
    last of the prefix and all after it: in training the suffix, and nothing where a prompt is read. It also does
    without gradient checkpointing: for so few positions there is little to recompute. The other layers are as they were
    in training; without gradient nothing of them is kept for longer than it is used, which at 896 pixels is most of
    what the states of a layer take.
    """
    original, attention = layer.forward, layer.self_attn

    def forward(
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        prefix_length: int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        # A step of decoding, or prompts of several lengths.
        if prefix_length is None or (torch.is_grad_enabled() and not last):
            full: torch.Tensor = original(
                hidden_states,
                attention_mask=attention_mask,
                position_embeddings=position_embeddings,
                prefix_length=prefix_length,
                **kwargs,
            )
            return full
        first = prefix_length - 1 if last else 0
        border = {} if last else {"prefix_length": prefix_length, "prefix_padded": kwargs.get("prefix_padded", True)}

        def attended() -> torch.Tensor:
            states = layer.input_layernorm(hidden_states)
            cos, sin = position_embeddings
            query = _rotated(attention.q_proj(states[:, first:]), attention.head_dim, cos[:, first:], sin[:, first:])
            key = _rotated(attention.k_proj(states), attention.head_dim, cos, sin)
            value = attention.v_proj(states).view(*states.shape[:2], -1, attention.head_dim).transpose(1, 2)
            del states
            if (cache := kwargs.get(CACHE)) is not None:
                key, value = cache.update(key, value, attention.layer_idx)
            found, _ = prefix_sdpa(attention, query, key, value, attention_mask, scaling=attention.scaling, **border)
            del query, key, value
            result: torch.Tensor = attention.o_proj(found.reshape(*found.shape[:2], -1))
            return result

        residual = hidden_states[:, first:] + layer.post_attention_layernorm(attended())
        update = layer.mlp(layer.pre_feedforward_layernorm(residual))
        result: torch.Tensor = residual + layer.post_feedforward_layernorm(update)
        return result

    return forward


def _rotated(states: torch.Tensor, head_dim: int, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions onto real[B, L, heads * D], which is lost without gradient; real[B, heads, L, D]."""
    split = states.view(*states.shape[:2], -1, head_dim).transpose(1, 2)
    half: torch.Tensor = rotate_half(split)  # type: ignore[no-untyped-call]
    if torch.is_grad_enabled():
        return split * cos.unsqueeze(1) + half * sin.unsqueeze(1)
    return split.mul_(cos.unsqueeze(1)).add_(half.mul_(sin.unsqueeze(1)))
