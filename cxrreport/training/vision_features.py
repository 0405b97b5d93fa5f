"""Features of the frozen vision tower, computed once per image if they cannot change.

A frozen tower gives the same features for the same image in every pass. With gradient checkpointing stock transformers
even runs the backward pass through it, because the recomputed activations require gradients; here it runs under
`no_grad` and its output is passed to the model instead of pixels.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from cxrreport.model.adapters import paligemma
from cxrreport.model.checkpoints import LoadedModel
from cxrreport.model.prompt import to_pixels
from cxrreport.records import Progress
from cxrreport.training.samples import SplitSamples

CACHE_BYTES = 2**30
"""Features of a split up to this size are kept in memory: 256 tokens of width 128 in bfloat16 are 64 KB per image, so
the demo's splits fit with room to spare, and 4,096 tokens of width 1,152 are 9 MB, so real ones at 896 px do not."""

_CACHE_BATCH = 16
"""Images per pass while the cache is filled: fixed, so that a resumed run gets the same bits."""


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Matrix products in `dtype`; LoRA matrices and what is sensitive stay in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


class VisionFeatures:
    """Outputs of the frozen vision tower, before the projector, which may be trained.

    Args:
        tower: the vision tower.
        device: of the model.
        dtype: of the matrix products.
    """

    def __init__(self, tower: Any, device: torch.device, dtype: torch.dtype) -> None:
        self._tower = tower
        self._device = device
        self._dtype = dtype
        self._kept: torch.Tensor | None = None

    @property
    def kept(self) -> bool:
        """True if the features of a split are in memory, and no pixels are needed."""
        return self._kept is not None

    def keep(self, samples: SplitSamples, image_tokens: int, progress: Progress) -> None:
        """Compute the features of a split and keep them in memory."""
        total = len(samples.image_ids)
        kept = torch.empty((total, image_tokens, self._tower.config.hidden_size), dtype=self._dtype)
        for start in range(0, total, _CACHE_BATCH):
            stop = min(start + _CACHE_BATCH, total)
            grey = torch.from_numpy(np.stack([samples.pixels(index) for index in range(start, stop)]))
            kept[start:stop] = self._compute(grey).cpu()
            progress(stop, total, f"{samples.split.value} features")
        self._kept = kept

    def __call__(self, *, index: torch.Tensor, grey: torch.Tensor | None) -> torch.Tensor:
        """Features of one batch.

        Args:
            index: int64[N], images of the split, used if features are kept.
            grey: uint8[N, R, R], used if they are not.

        Returns:
            real[N, image tokens, width of the tower] on the model's device, without gradient.
        """
        if self._kept is not None:
            return self._kept[index.cpu()].to(self._device)
        if grey is None:
            raise ValueError("neither kept features nor pixels")
        return self._compute(grey)

    @torch.no_grad()
    def _compute(self, grey: torch.Tensor) -> torch.Tensor:
        with autocast(self._device, self._dtype):
            hidden: torch.Tensor = self._tower(to_pixels(grey.to(self._device))).last_hidden_state
        return hidden.to(self._dtype)


def frozen_features(
    loaded: LoadedModel, samples: SplitSamples, dtype: torch.dtype, *, keep: bool, progress: Progress
) -> VisionFeatures | None:
    """Features of a split, or `None` if the vision tower is trained.

    Args:
        loaded: the model.
        samples: the split.
        dtype: of the matrix products.
        keep: compute them now and keep them in memory, if they fit into `CACHE_BYTES`.
        progress: called with completed and total images.
    """
    tower = paligemma(loaded.model).vision_tower
    if any(p.requires_grad for p in tower.parameters()):
        return None
    features = VisionFeatures(tower, loaded.device, dtype)
    size = len(samples.image_ids) * loaded.image_tokens * int(tower.config.hidden_size) * dtype.itemsize
    if keep and size <= CACHE_BYTES:
        features.keep(samples, loaded.image_tokens, progress)
    return features
