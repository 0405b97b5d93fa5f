"""Layers in place of those of transformers and peft while a model trains or generates, by device.

On a GPU they are those of `gpu_layers`. On a CPU a small model spends a third of its step in element-wise passes: LoRA
in peft makes two temporaries of the layer's output, and the root mean square norm of transformers eight of its input.
Results agree with the originals to rounding, which the tests hold them to and which `self_check` proves for every
loaded model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from cxrreport.model import compat, gpu_layers
from cxrreport.model.attention import FULL_MASK, prefix_sdpa
from cxrreport.model.compat import CACHE, Gemma2MLP, Gemma2RMSNorm, SiglipMLP, plain_lora, rotate_half
from cxrreport.model.self_check import replacements_agree

_PIECE = 512
"""Positions of a prompt or an image that go through a feed-forward layer together."""

_FEW = 32
"""Positions up to which the output layer multiplies from the left, see `_output_layer`."""


@contextmanager
def fused(
    model: Any,
    language: Any,
    *,
    softcap: bool,
    compiled: bool = False,
    constant: bool = False,
    device: str | None = None,
) -> Iterator[None]:
    """Replace layers of `model` within the block, if they pass the self-check of this model.

    Within the block, and without soft-capping, the model takes `border_mask` and `prefix_length`, and returns the
    positions from the last one of the prefix on. This holds for the layers of transformers too if the check fails.

    Args:
        model: with or without LoRA.
        language: its language model, a `Gemma2Model`.
        softcap: with soft-capping attention is eager, and the layers of the language model stay as they are.
        compiled: compile the layers of the language model for passes with gradient; norms and LoRA are then left to the
            compiler.
        constant: no weight changes within the block.
        device: type of the device whose forms are used, `cuda` or another; `None` for that of the model.

    Raises:
        UnsupportedVersionError: the layers of transformers do not pass the self-check either.
    """
    gpu = (device or language.embed_tokens.weight.device.type) == "cuda"
    form = partial(_replaced_layers, model, language, softcap=softcap, gpu=gpu, constant=constant)
    replaced_layers = partial(form, compiled=False)
    stock = partial(_stock_layers, language, softcap=softcap)
    agree = replacements_agree(model, language, softcap=softcap, replaced=replaced_layers, stock=stock)
    with ExitStack() as stack:
        if agree:
            stack.enter_context(form(compiled=compiled))
        else:
            stack.enter_context(stock())
        if compiled:
            for layer in language.layers:
                stack.enter_context(replaced(layer, _compiled(layer)))
        yield


@contextmanager
def _replaced_layers(
    model: Any, language: Any, *, softcap: bool, compiled: bool, gpu: bool, constant: bool
) -> Iterator[None]:
    with ExitStack() as stack:
        if not gpu:
            stack.enter_context(replaced(output := model.get_output_embeddings(), _output_layer(output)))
        for module in () if compiled else model.modules():
            if plain_lora(module):
                form = gpu_layers.lora(module, constant=constant) if gpu else _lora(module)
                stack.enter_context(replaced(module, form))
            elif isinstance(module, Gemma2RMSNorm) and not module.weight.requires_grad:
                stack.enter_context(replaced(module, gpu_layers.norm(module) if gpu else _norm(module)))
            elif isinstance(module, (Gemma2MLP, SiglipMLP)) and not gpu:
                stack.enter_context(replaced(module, _in_pieces(module)))
        for layer in () if softcap else language.layers:
            form = _layer(layer, last=layer is language.layers[-1], gpu=gpu)
            stack.enter_context(replaced(layer, form))
        yield


def _compiled(layer: Any) -> Any:
    """The layer compiled for passes with gradient. Generation has other shapes at every step, and dynamo gives up after
    eight; it runs the layer as it is.
    """
    plain, compiled = layer.forward, torch.compile(layer.forward)

    def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
        result: torch.Tensor = (compiled if torch.is_grad_enabled() else plain)(*args, **kwargs)
        return result

    return forward


@contextmanager
def _stock_layers(language: Any, *, softcap: bool) -> Iterator[None]:
    """The layers of transformers with the masks and the returned positions of the replaced ones."""
    if softcap:
        yield
        return
    last = language.layers[-1]
    with compat.attention_set_to(FULL_MASK, language.config), replaced(last, _from_border(last)):
        yield


@contextmanager
def replaced(module: torch.nn.Module, forward: Any) -> Iterator[None]:
    """Set another `forward` on the instance within the block; blocks may be nested."""
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def _output_layer(module: Any) -> Any:
    """The output layer with its table on the left for few positions in float32 on a CPU.

    With the states on the left, as in a linear layer, the CPU's library rearranges the table of 257,216 rows at every
    step of decoding (measured, 4 rows of 256 and one thread: 58 ms; with the table on the left 26 ms).
    """
    original = module.forward

    def forward(states: torch.Tensor) -> torch.Tensor:
        rows = states.reshape(-1, states.shape[-1])
        few = states.device.type == "cpu" and states.dtype == torch.float32 and len(rows) <= _FEW
        if torch.is_grad_enabled() or not few:
            full: torch.Tensor = original(states)
            return full
        return torch.mm(module.weight, rows.t()).t().contiguous().view(*states.shape[:-1], -1)

    return forward


def _from_border(layer: Any) -> Any:
    """The last layer, whose output begins at the last position of the prefix."""
    original = layer.forward

    def forward(
        hidden_states: torch.Tensor, *args: Any, prefix_length: int | None = None, **kwargs: Any
    ) -> torch.Tensor:
        out: torch.Tensor = original(hidden_states, *args, prefix_length=prefix_length, **kwargs)
        whole = out.shape[1] == hidden_states.shape[1]
        return out[:, prefix_length - 1 :] if whole and prefix_length is not None else out

    return forward


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
        # LoRA's weights are float32 on a bfloat16 base; without autocast they must be converted.
        low = torch.nn.functional.linear(dropout(flat), a.weight.to(out.dtype))
        # In place: the backward pass does not need the output of a frozen linear layer. Contiguous: autograd then
        # computes the gradient of B as (rank, L) x (L, width); the transposed product is 10 times slower.
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
    """A feed-forward layer that, without gradient, works in place on few positions, whose states fit into the cache."""
    original = module.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() or x.device.type != "cpu" or x.shape[1] <= _PIECE:
            result: torch.Tensor = original(x)
            return result
        for piece in torch.split(x, _PIECE, dim=1):  # x is the output of a norm, which only this layer reads
            piece.copy_(original(piece))
        return x

    return forward


class _FrozenNorm(torch.autograd.Function):
    """x / rms(x) * (1 + weight) in float32, with a gradient for x only."""

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


def _layer(layer: Any, *, last: bool, gpu: bool) -> Any:
    """A layer of the language model with less work and memory when a whole prefix is read.

    The last layer is only computed for positions that predict a token, that is for the last position of the prefix and
    for the suffix; all other positions only provide keys and values. It needs no gradient checkpointing, as there is
    little to recompute for so few positions. The other layers are unchanged in training. Without gradient they free
    every tensor after its last use, which at 896 pixels is most of the memory of a layer.

    On a GPU this is also the form of a step of decoding, in 26 operations (`gpu_layers`).
    """
    original, attention = layer.forward, layer.self_attn

    def forward(
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        prefix_length: int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        trained = torch.is_grad_enabled()
        # Without a length: one step of decoding, or prompts of different lengths.
        if (trained and not last) or (prefix_length is None and (trained or not gpu)):
            full: torch.Tensor = original(
                hidden_states,
                attention_mask=attention_mask,
                position_embeddings=position_embeddings,
                prefix_length=prefix_length,
                **kwargs,
            )
            return full
        first, border = 0, {}
        if prefix_length is not None and last:
            first = prefix_length - 1
        elif prefix_length is not None:
            border = {"prefix_length": prefix_length, "prefix_padded": kwargs.get("prefix_padded", True)}

        def attended() -> torch.Tensor:
            states = layer.input_layernorm(hidden_states)
            cos, sin = position_embeddings
            rotated = partial(_rotated, head_dim=attention.head_dim, gpu=gpu)
            query = rotated(attention.q_proj(states[:, first:]), cos[:, first:], sin[:, first:])
            key = rotated(attention.k_proj(states), cos, sin)
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


def _rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, head_dim: int, gpu: bool) -> torch.Tensor:
    """Apply rotary positions to real[B, L, heads * D], in place without gradient; returns real[B, heads, L, D]."""
    split = states.view(*states.shape[:2], -1, head_dim).transpose(1, 2)
    half: torch.Tensor = rotate_half(split)  # type: ignore[no-untyped-call]
    if torch.is_grad_enabled():
        return split * cos.unsqueeze(1) + half * sin.unsqueeze(1)
    split.mul_(cos.unsqueeze(1))
    # One operation less, and another rounding.
    return split.addcmul_(half, sin.unsqueeze(1)) if gpu else split.add_(half.mul_(sin.unsqueeze(1)))
