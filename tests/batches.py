"""Batches with their pixels, as the models of transformers take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cxrreport.model.prompt import Batch, PromptLayout, pixel_values
from cxrreport.records import Report


def training_batch(layout: PromptLayout, reports: Sequence[Report], images: Sequence[Any]) -> Batch:
    """`collate_training` of encoded reports, with `pixel_values` float32[B, 3, R, R]."""
    return layout.collate_training([layout.encode(r) for r in reports]) | {"pixel_values": pixel_values(images)}


def generation_batch(layout: PromptLayout, reports: Sequence[Report], images: Sequence[Any]) -> Batch:
    """`collate_generation` of encoded prefixes, with `pixel_values` float32[B, 3, R, R]."""
    encoded = [layout.encode_prefix(layout.prefix(r)) for r in reports]
    return layout.collate_generation(encoded) | {"pixel_values": pixel_values(images)}
