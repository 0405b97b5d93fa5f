"""Attention of PaliGemma 2: full over image, prefix and separator, causal over the suffix, nothing else.

transformers derives the mask from the text configuration, and its defaults differ from the reference implementation:
soft-capping is on (which forces the slow eager path), a sliding window of 4096 hides image patches at 896 px, and a
forward pass without token types is silently causal over the image. `prepare_config` sets the first two; the attention
function registered here refuses the third.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

from cxrreport.model.compat import AttentionInterface, AttentionMaskInterface, sdpa_attention_forward, sdpa_mask

PREFIX_LM = "cxrreport_prefix_lm"
"""Name of `prefix_sdpa` in transformers."""

SOFTCAP = "cxrreport_softcap"
"""Name of `softcap_flex` in transformers."""

FULL_MASK = "cxrreport_full_mask"
"""Name of `full_mask_sdpa` in transformers."""

NARROW_HEAD = 64
"""Head size up to which attention in bfloat16 runs in float32 on a CPU."""

NO_WINDOW = 2**30
"""A window longer than any sequence. With `None` the model's forward pass fails."""


def prefix_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    prefix_length: int | None = None,
    prefix_padded: bool = True,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention (SDPA) that never guesses a mask.

    transformers does not offer SDPA for Gemma 2 because SDPA cannot soft-cap; without soft-capping it is exact.

    Args:
        module: the attention layer.
        query: real[B, heads, Q, D], of the last Q positions.
        key: real[B, key-value heads, K, D].
        value: real[B, key-value heads, K, D].
        attention_mask: bool[B, 1, Q, K], True if attended, or bool[B, 1, 1, K] for all queries; `None` only for a
            single query (decoding). With `prefix_length`, a `border_mask`.
        dropout: probability of dropping an attention weight.
        scaling: factor of the logits.
        prefix_length: number of positions of image, prefix and separator, if equal in the whole batch. Their queries
            then only run over their own keys, and without a mask if nothing is padded: the fastest kernels take none.
        prefix_padded: some of the first `prefix_length` positions are padding.
        kwargs: other arguments of transformers, including `softcap`.

    Returns:
        real[B, Q, heads, D], and `None` for the weights, which are never computed.

    Raises:
        ValueError: soft-capping is on, or several queries come without a mask. torch would then be causal over the
            image or, with transformers' flag for bidirectional models, leak later suffix tokens to earlier ones.
    """
    if kwargs.get("softcap") is not None:
        raise ValueError("SDPA cannot soft-cap attention logits: load the checkpoint with softcap=True")
    queries = query.shape[2]
    if queries == 1:
        return _grouped(query, key, value, attention_mask, dropout, scaling), None
    if attention_mask is None:
        raise ValueError("no attention mask: pass token_type_ids, 0 on image, prefix and separator, 1 on the suffix")
    dtype = query.dtype
    # For narrow heads the conversions in the CPU kernel cost more than bfloat16 products save (measured: 66 ms wide and
    # 86 ms in bfloat16, forward and backward, with 4 heads of 32, 380 tokens, batch 16).
    wide = query.device.type == "cpu" and dtype == torch.bfloat16 and query.shape[3] <= NARROW_HEAD
    if wide:
        query, key, value = query.float(), key.float(), value.float()
    with torch.autocast(query.device.type, enabled=False) if wide else nullcontext():
        border = 0 if prefix_length is None else prefix_length - (key.shape[2] - queries)
        parts = []
        if border > 0:
            parts.append(
                sdpa_attention_forward(
                    module,
                    query[:, :, :border],
                    key[:, :, :prefix_length],
                    value[:, :, :prefix_length],
                    attention_mask[:, :, :1, :prefix_length] if prefix_padded else None,
                    dropout,
                    scaling,
                    is_causal=False,
                    **kwargs,
                )[0]
            )
        if border < queries:
            seen = attention_mask[:, :, 1:] if border > 0 else attention_mask
            parts.append(_grouped(query[:, :, max(border, 0) :], key, value, seen, dropout, scaling))
    out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return out.to(dtype), None


def _grouped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout: float,
    scaling: float | None,
) -> torch.Tensor:
    """Attention of few queries, real[B, Q, heads, D].

    Heads that share keys become queries of one head, because repeating the keys would copy them.
    """
    batch, heads, queries, width = query.shape
    groups = heads // key.shape[1]
    if mask is not None and mask.shape[2] > 1:
        mask = mask.repeat(1, 1, groups, 1)
    rows = query.reshape(batch, key.shape[1], groups * queries, width)
    out = scaled_dot_product_attention(rows, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return out.reshape(batch, heads, queries, -1).transpose(1, 2)


def border_mask(attention_mask: torch.Tensor, prefix_length: int) -> torch.Tensor:
    """What prefix and suffix attend to, in memory linear in the prefix.

    Args:
        attention_mask: int64[B, L], 0 on padding.
        prefix_length: number of positions of image, prefix, separator and the padding before them.

    Returns:
        bool[B, 1, 1 + L - prefix_length, L]: one row for the whole prefix, then one for each position of the suffix.
    """
    places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return attention_mask[:, None, None].bool() & (places <= places[prefix_length - 1 :, None])


def full_mask_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """`prefix_sdpa` with the mask written out for every query and all else left to transformers; see `self_check`."""
    # The first row of a shorter mask is that of the prefix, or of all queries.
    mask = attention_mask
    if mask is not None and (repeated := query.shape[2] - mask.shape[2]):
        mask = torch.cat([mask[:, :, :1].expand(-1, -1, repeated, -1), mask], dim=2)
    out, _ = sdpa_attention_forward(module, query, key, value, mask, is_causal=False, **kwargs)
    return out, None


def softcap_flex(
    module: torch.nn.Module,  # noqa: ARG001 - the interface of transformers
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: Any,  # noqa: ARG001
) -> tuple[torch.Tensor, None]:
    """Attention with soft-capped logits that are never all in memory: at 896 px eager attention forms 4,300 squared.

    Equals eager attention, without gradient also on a CPU, where torch has no backward pass for it.

    Args:
        module: the attention layer.
        query: real[B, heads, Q, D].
        key: real[B, key-value heads, K, D].
        value: real[B, key-value heads, K, D].
        attention_mask: bool[B, 1, Q or 1, K], True if attended, or real of the same shape, which is added.
        dropout: must be 0, as in the configuration of every checkpoint.
        scaling: factor of the logits.
        softcap: logits become softcap * tanh(logits / softcap).
        kwargs: other arguments of transformers.

    Returns:
        real[B, Q, heads, D], and `None` for the weights.

    Raises:
        ValueError: several queries come without a mask, or there is dropout.
    """
    if attention_mask is None and query.shape[2] > 1:
        raise ValueError("no attention mask: pass token_type_ids, 0 on image, prefix and separator, 1 on the suffix")
    if dropout:
        raise ValueError("soft-capped attention has no dropout")
    mask = attention_mask
    rows = 0 if mask is None or mask.shape[2] == 1 else 1

    def score(logit: Any, batch: Any, _head: Any, place: Any, seen: Any) -> Any:
        if softcap is not None:
            logit = softcap * torch.tanh(logit / softcap)
        if mask is None:
            return logit
        found = mask[batch, 0, place * rows, seen]
        return torch.where(found, logit, -torch.inf) if mask.dtype == torch.bool else logit + found

    attend: Any = _compiled_flex() if query.device.type == "cuda" else flex_attention
    out = attend(query, key, value, score_mod=score, scale=scaling, enable_gqa=query.shape[1] != key.shape[1])
    return out.transpose(1, 2).contiguous(), None


@cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention, dynamic=True)


for _name, _function in ((PREFIX_LM, prefix_sdpa), (FULL_MASK, full_mask_sdpa), (SOFTCAP, softcap_flex)):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, sdpa_mask)


def prepare_config(config: Any, *, softcap: bool) -> None:
    """Set soft-capping, window and layer types of a `PaliGemmaConfig` before a model is built from it.

    Args:
        config: changed in place.
        softcap: keep the configuration's soft-capping of attention and final logits (stages 1 and 2 of pre-training,
            arXiv 2412.03555, section 3); False removes both, as in transfer (stage 3).
    """
    text = config.text_config
    # Full attention in every layer, so that the cache keeps every position; the window must be a number nevertheless.
    text.layer_types = ["full_attention"] * text.num_hidden_layers
    text.sliding_window = NO_WINDOW
    if not softcap:
        text.attn_logit_softcapping = None
        text.final_logit_softcapping = None


def implementation(*, softcap: bool, device: str = "cpu") -> dict[str, str]:
    """Attention per part of the model, for `from_pretrained(attn_implementation=...)`.

    Not flash attention: its mask supports padding but no bidirectional prefix. With soft-capping, attention is eager on
    a CPU, where flex attention cannot train.
    """
    language = PREFIX_LM if not softcap else SOFTCAP if device == "cuda" else "eager"
    return {"": language, "text_config": language, "vision_config": "sdpa"}
