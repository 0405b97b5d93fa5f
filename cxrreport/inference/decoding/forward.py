"""Forward passes of a loaded model: prompts with their images, and single tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from cxrreport.inference.decoding.kv_cache import SlotCache
from cxrreport.inference.decoding.requests import PreparedRequest
from cxrreport.model.capacity import positions as positions_of
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.compat import CACHE, image_arguments, image_features
from cxrreport.model.prompt import PromptLayout, pixel_values, pooled, positions

Step = Callable[[Sequence[int], Sequence[int]], torch.Tensor]
"""Reads one token into each of the first slots, at places counted from 0; returns the logits that follow, float32[n,
vocabulary]."""


class ForwardPasses:
    """Forward passes of one model. Features of the images of the last call are kept for the next one."""

    def __init__(self, loaded: LoadedModel, layout: PromptLayout) -> None:
        self.model: Any = loaded.model
        self._loaded = loaded
        self._layout = layout
        self._features: dict[str, torch.Tensor] = {}

    def read_prompts(self, requests: Sequence[PreparedRequest], cache: SlotCache, *, first: int) -> torch.Tensor:
        """Read prompts into the slots from `first` on; logits of the next token, float32[n, vocabulary]."""
        prompt = self.prompt_inputs(requests)
        mask = prompt.pop("attention_mask")
        padding = [mask.shape[1] - prepared.length for prepared in requests]
        cache.begin_prompts(first, padding)
        # Within a prompt attention is full: all queries share their keys, and without padding no mask is needed.
        border = {} if any(padding) else {"prefix_length": mask.shape[1], "prefix_padded": False}
        images = self.image_inputs(requests)
        return self._forward(
            cache, mask[:, None, None].bool(), position_ids=positions(mask), **border, **prompt, **images
        )

    def read_tokens(self, tokens: Sequence[int], places: Sequence[int], cache: SlotCache) -> torch.Tensor:
        """Read one token into each of the first slots, at `places`, from 0; logits as in `read_prompts`."""
        device = self._loaded.device
        width = positions_of(max(places) + 1, device.type)
        return self.step(torch.tensor(tokens, device=device), torch.tensor(places, device=device), width, cache)

    def step(self, tokens: torch.Tensor, at: torch.Tensor, width: int, cache: SlotCache) -> torch.Tensor:
        """`read_tokens` for int64[n] on the device, all places below `width`; it does not wait for the device."""
        cache.begin_step(at, width)
        return self._forward(
            cache,
            (torch.arange(width, device=at.device) <= at[:, None])[:, None, None],
            position_ids=at[:, None] + 1,  # counted from 1
            input_ids=tokens[:, None],
        )

    def _forward(self, cache: SlotCache, mask: torch.Tensor, **inputs: Any) -> torch.Tensor:
        # Eager attention adds its mask, and on a GPU every layer would convert a boolean one.
        if self._loaded.softcap or self._loaded.device.type == "cuda":
            mask = torch.zeros_like(mask, dtype=self._loaded.dtype).masked_fill(~mask, -torch.inf)
        output = self.model(**inputs, **{CACHE: cache}, attention_mask=mask, use_cache=True, logits_to_keep=1)
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def prompt_inputs(self, requests: Sequence[PreparedRequest]) -> dict[str, torch.Tensor]:
        """Ids, token types and mask of a batch of prompts, left-padded."""
        batch = self._layout.collate_generation([prepared.encoded for prepared in requests])
        return {name: part.to(self._loaded.device) for name, part in batch.items()}

    def image_inputs(self, requests: Sequence[PreparedRequest]) -> dict[str, Any]:
        """Arguments of the model for the image features of a batch; equal images are encoded once."""
        images = {
            key: image
            for prepared in requests
            for key, image in zip(prepared.image_sha256, prepared.request.images, strict=True)
        }
        new = {key: image for key, image in images.items() if key not in self._features}
        if new:
            features = image_features(self.model, pixel_values(list(new.values())).to(self._loaded.device))
            self._features = {key: kept for key, kept in self._features.items() if key in images}
            self._features.update(zip(new, features, strict=True))
        parts = [self._features[key] for prepared in requests for key in prepared.image_sha256]
        features = torch.stack(parts) if len(parts) > 1 else parts[0][None]  # one image needs no copy
        return image_arguments(pooled(features, [pool for prepared in requests for pool in prepared.encoded.pools]))

    def forget_features(self) -> None:
        """Free the features of the last call's images."""
        self._features.clear()
