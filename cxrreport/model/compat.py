"""Names of torch, transformers and peft that are private or differ between versions.

Other modules import them from here. A name that the installed version lacks is an `UnsupportedVersionError` that states
the installed versions and the supported ranges.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from cxrreport import versions

PACKAGES = ("torch", "transformers", "peft", "accelerate")
"""The libraries whose layers are replaced."""

supported_names = partial(versions.supported_names, PACKAGES)


def _first(names: tuple[str, ...], owner: Any, available: Mapping[str, Any]) -> str:
    for name in names:
        if name in available:
            return name
    raise versions.unsupported(f"{owner.__qualname__} has none of {', '.join(names)}", PACKAGES)


with supported_names():
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AttentionInterface, AttentionMaskInterface, PaliGemmaForConditionalGeneration
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask
    from transformers.modeling_outputs import BaseModelOutputWithPooling
    from transformers.models.gemma2.modeling_gemma2 import Gemma2MLP, Gemma2Model, Gemma2RMSNorm, rotate_half
    from transformers.models.siglip.modeling_siglip import SiglipEncoderLayer, SiglipMLP

_ARGUMENTS = inspect.signature(PaliGemmaForConditionalGeneration.forward).parameters

CACHE = _first(("cache", "past_key_values"), PaliGemmaForConditionalGeneration, _ARGUMENTS)
"""Argument that passes keys and values through the model and its layers; renamed in transformers 5.24."""

_FEATURES = _first(("mm_encoder_outputs",), PaliGemmaForConditionalGeneration, _ARGUMENTS)

_CHECKPOINTING = _first(
    ("activation_checkpointing_enable", "gradient_checkpointing_enable"), Gemma2Model, dict.fromkeys(dir(Gemma2Model))
)


def image_features(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Projected image features, real[N, image tokens, width], of float32[N, 3, R, R] in [-1, 1]."""
    with supported_names():
        features: torch.Tensor = model.get_image_features(pixels).pooler_output
    return features


def image_arguments(features: torch.Tensor) -> dict[str, Any]:
    """Arguments of the model that pass projected image features, real[N, image tokens, width], instead of pixels."""
    return {_FEATURES: {"image": BaseModelOutputWithPooling(pooler_output=features)}}


def features_in(arguments: Mapping[str, Any]) -> torch.Tensor | None:
    """The image features in arguments of `image_arguments`; `None` if there are none."""
    outputs = arguments.get(_FEATURES)
    if outputs is None:
        return None
    features: torch.Tensor = outputs["image"].pooler_output
    return features


def enable_gradient_checkpointing(language: Any) -> None:
    """Recompute the activations of each layer of a `Gemma2Model` in the backward pass."""
    getattr(language, _CHECKPOINTING)({"use_reentrant": False})


def model_without_weights(config: Any, implementation: dict[str, str]) -> Any:
    """An initialised `PaliGemmaForConditionalGeneration` of the current default dtype and device.

    Args:
        config: changed in place.
        implementation: attention per part of the model, see `attention.implementation`.
    """
    architecture: Any = PaliGemmaForConditionalGeneration
    with supported_names():
        set_attention(config, implementation)
        return architecture._from_config(config, attn_implementation=implementation)


def set_attention(config: Any, implementation: str | dict[str, str]) -> None:
    """Set the attention implementation of a configuration, also of a model that is already built from it."""
    config._attn_implementation = implementation


@contextmanager
def attention_set_to(implementation: str, config: Any) -> Iterator[None]:
    """Run the layers of a text configuration with another attention implementation for the length of the block."""
    with supported_names():
        before = config._attn_implementation
    set_attention(config, implementation)
    try:
        yield
    finally:
        set_attention(config, before)


def plain_lora(module: Any) -> bool:
    """True for a linear layer with one LoRA adapter of the original kind (no DoRA or other variant)."""
    if not hasattr(module, "lora_A"):
        return False
    with supported_names():
        from peft.tuners.lora import Linear  # takes 55 MB, which a model without an adapter does not need

        return isinstance(module, Linear) and module.active_adapters == ["default"] and not module.lora_variant


def storage_key(tensor: torch.Tensor) -> int:
    """A number that tensors share if they share memory, also on the meta device, where data pointers are 0."""
    with supported_names():
        return int(tensor.untyped_storage()._cdata)


def flash_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention by the kernel that never forms the weights, real[B, heads, L, D]; all arguments have all heads."""
    with supported_names():
        out: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
    return out
