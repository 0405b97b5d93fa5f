"""Check that replaced layers compute what those of transformers do, for every loaded model before its first use.

`fused` relies on arguments that transformers passes to layers and attention. When a release renames one, the result is
another text and no error. So a prompt of a few tokens is run both ways; if they differ, the model runs on stock layers.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import DynamicCache

from cxrreport import versions
from cxrreport.model import compat
from cxrreport.model.attention import border_mask

_LOG = logging.getLogger(__name__)

_TOLERANCE = {True: (1e-3, 1e-2), False: (0.25, 0.5)}
"""Relative difference (Euclidean norm) of states, and of gradients, up to which it is rounding; True: in float32.

Measured on the tiny checkpoint and on random models of 26 layers: 7e-6 and 2e-5 in float32, 0.1 and 0.15 in bfloat16; a
token that does not see the prompt makes 0.76 of states.
"""

_IMAGE_TOKENS, _PREFIX, _SUFFIX = 4, 10, 4
"""Positions of the prompt: image tokens, all of the prefix with them, and the suffix in training."""

Layers = Callable[[], AbstractContextManager[None]]

_PROVEN: WeakKeyDictionary[torch.nn.Module, dict[bool, bool]] = WeakKeyDictionary()


def replacements_agree(model: Any, language: Any, *, softcap: bool, replaced: Layers, stock: Layers) -> bool:
    """Compare the two ways to run a model, once per process; log a warning if they differ.

    Checked are logits after a prompt and after one more token, that each layer stores keys and values once per pass,
    and for a model that is trained the logits and gradients of a training batch.

    Args:
        model: with or without LoRA.
        language: its `Gemma2Model`.
        softcap: soft-capping is on, and attention is that of transformers.
        replaced: replaces layers of the model within its block.
        stock: the same interface (masks, positions that are returned) on the layers of transformers.

    Returns:
        True if the replaced layers may be used.

    Raises:
        UnsupportedVersionError: `stock` differs too from what transformers computes from token types.
    """
    if language.embed_tokens.weight.device.type == "meta":
        return True
    trained = [p for p in model.parameters() if p.requires_grad]
    training = bool(trained) and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    known = _PROVEN.setdefault(model, {})
    if not training and True in known:  # a check of training includes generation
        return known[True]
    if training not in known:
        prompt = _Prompt.of(model, language, softcap=softcap)
        reason = _difference(prompt, replaced, training=training)
        if reason:
            if still := _difference(prompt, stock, training=training):
                raise versions.unsupported(f"self-check of the model: {still}", compat.PACKAGES)
            _LOG.warning(
                "self-check of the model: with the replaced layers %s; it runs on the layers of transformers, which "
                "give the same texts and take longer (%s)",
                reason,
                versions.listed(compat.PACKAGES),
            )
        known[training] = not reason
    return known[training]


@dataclass(frozen=True)
class _Outcome:
    """What one way to run the model gives: attention outputs and logits of each pass, gradients, stores by layer."""

    states: list[torch.Tensor]
    gradients: list[torch.Tensor]
    stored: Counter[int]


@dataclass(frozen=True)
class _Prompt:
    """Random features of an image and a few words, the same for every model of one width."""

    model: Any
    language: Any
    softcap: bool
    ids: torch.Tensor
    features: torch.Tensor

    @classmethod
    def of(cls, model: Any, language: Any, *, softcap: bool) -> _Prompt:
        weight, random = language.embed_tokens.weight, torch.Generator().manual_seed(0)
        image_id = int(model.config.image_token_id)
        words = torch.randint(3, min(100, image_id), (2, _PREFIX + _SUFFIX), generator=random)
        words[:, :_IMAGE_TOKENS] = image_id
        features = torch.randn(2, _IMAGE_TOKENS, weight.shape[1], generator=random)
        features *= float(weight.detach().flatten()[:4096].float().std()) * weight.shape[1] ** 0.5
        return cls(model, language, softcap, words.to(weight.device), features.to(weight.device, weight.dtype))

    def run(self, *, stock: bool, training: bool) -> _Outcome:
        """Generate, and train if asked to.

        Args:
            stock: leave masks to transformers instead of passing those of this project.
            training: include a training batch.
        """
        states, stored = self._generation(stock)
        more, gradients = self._training(stock) if training else ([], [])
        return _Outcome(states + more, gradients, stored)

    @torch.no_grad()
    def _generation(self, stock: bool) -> tuple[list[torch.Tensor], Counter[int]]:
        """Read a prompt and one more token."""
        cache, ids = _CountingCache(), self.ids[:1, : _PREFIX + 1]
        given = {compat.CACHE: cache, "use_cache": True, "logits_to_keep": 1}
        places = torch.arange(1, _PREFIX + 2, device=ids.device)[None]
        masks = [torch.ones(1, length, dtype=torch.int64, device=ids.device) for length in (_PREFIX, _PREFIX + 1)]
        border: dict[str, Any] = {}
        if not stock:
            masks = [self._additive(mask[:, None, None].bool()) for mask in masks]
            border = {"prefix_length": _PREFIX, "prefix_padded": False}
        with _mode(self.model, training=False), _attention_outputs(self.language) as seen:
            read = self.model(
                input_ids=ids[:, :_PREFIX],
                attention_mask=masks[0],
                token_type_ids=torch.zeros_like(ids[:, :_PREFIX]),
                position_ids=places[:, :_PREFIX],
                **compat.image_arguments(self.features[:1]),
                **border,
                **given,
            )
            step = self.model(
                input_ids=ids[:, _PREFIX:], attention_mask=masks[1], position_ids=places[:, _PREFIX:], **given
            )
        return [*seen, read.logits[:, -1:], step.logits], cache.stored

    def _training(self, stock: bool) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """A batch with its loss on the suffixes, and gradients for image features and some trained weights."""
        features = self.features.detach().requires_grad_()
        weights = [p for p in self.model.parameters() if p.requires_grad and type(p.data) is torch.Tensor]
        wanted = [features, *(p for p in weights[:2] + weights[-2:] if p.numel() < 2**22)]
        mask = torch.ones_like(self.ids)
        mask[1, 0] = 0  # the second row is padded, and one of its image tokens with it
        types = torch.zeros_like(self.ids)
        types[:, _PREFIX:] = 1
        border: dict[str, Any] = {}
        places = mask.cumsum(-1).clamp(min=1)
        if not (stock or self.softcap):
            mask = border_mask(mask, _PREFIX)
            border = {"prefix_length": _PREFIX, "prefix_padded": True}
        autocast = torch.autocast(features.device.type, dtype=torch.bfloat16, enabled=features.dtype == torch.bfloat16)
        with torch.enable_grad(), _mode(self.model, training=True), autocast:
            with _attention_outputs(self.language) as seen:
                logits = self.model(
                    input_ids=self.ids,
                    attention_mask=mask,
                    token_type_ids=types,
                    position_ids=places,
                    use_cache=False,
                    **compat.image_arguments(features),
                    **border,
                ).logits[:, -_SUFFIX - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), self.ids[:, _PREFIX:].flatten())
            gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        return [*seen, logits.detach()], [g for g in gradients if g is not None]

    def _additive(self, mask: torch.Tensor) -> torch.Tensor:
        if not self.softcap:
            return mask
        return torch.zeros_like(mask, dtype=self.features.dtype).masked_fill(~mask, -torch.inf)


def _difference(prompt: _Prompt, layers: Layers, *, training: bool) -> str:
    """What differs between some layers and those of transformers; empty if nothing does."""
    with compat.attention_set_to("eager", prompt.language.config):
        expected = prompt.run(stock=True, training=training)
    if not all(one.isfinite().all() for one in expected.states):
        return ""  # damaged weights, which callers report by study or by step
    try:
        with layers():
            found = prompt.run(stock=False, training=training)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a changed interface leads to
        return f"a pass fails ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    count = len(prompt.language.layers)
    if found.stored != dict.fromkeys(range(count), 2) or len(found.states) != len(expected.states):
        return f"{count} layers do not store keys and values once per pass (of two: {dict(found.stored)})"
    states, gradients = _TOLERANCE[prompt.features.dtype == torch.float32]
    for what, tolerance in (("states", states), ("gradients", gradients)):
        largest = max(map(_distance, getattr(found, what), getattr(expected, what)), default=0.0)
        if not largest <= tolerance:
            return f"{what} differ by {largest:.2g} of their size"
    return ""


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative difference over the positions that both have; the last layer may have computed the last ones alone."""
    expected = expected[:, -found.shape[1] :].float() if found.ndim == 3 else expected.float()
    difference = float((found.float() - expected).norm())
    return difference and difference / max(float(expected.norm()), 1e-12)


class _CountingCache(DynamicCache):
    """Counts how often each layer stores its keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: Counter[int] = Counter()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> Any:
        self.stored[layer_idx] += 1
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)


@contextmanager
def _attention_outputs(language: Any) -> Iterator[list[torch.Tensor]]:
    """Collect what attention finds, real[B, positions, width], of each layer and pass within the block.

    It depends on everything that a position attends to. Logits after a short prompt depend mostly on the last token.
    """
    found: list[torch.Tensor] = []

    def keep(_module: Any, args: tuple[torch.Tensor, ...]) -> None:
        found.append(args[0].detach())

    hooks = [layer.self_attn.o_proj.register_forward_pre_hook(keep) for layer in language.layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _mode(model: Any, *, training: bool) -> Iterator[None]:
    """Put a model into training mode without dropout, or into evaluation mode, for the length of the block."""
    before = [(module, module.training) for module in model.modules()]
    dropouts = [(module, module.p) for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    model.train(training)
    for module, _ in dropouts:
        module.p = 0.0
    try:
        yield
    finally:
        for module, was in before:
            module.training = was
        for module, p in dropouts:
            module.p = p
