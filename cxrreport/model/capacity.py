"""How much a device takes at once while texts are generated; the engine keeps to it, and `plan` reckons with it."""

from __future__ import annotations

from typing import Any

READ_AT_ONCE = {"cpu": 4608, "cuda": 36864}
"""Positions of prompts that are read in one forward pass: one image of 896 pixels with its text, or eight of them."""
MEMORY_SHARE = {"cpu": 0.5, "cuda": 0.7}
"""Share of the free memory that slots may take; the rest is for reading prompts."""
MOST_TEXTS = {"cpu": 8, "cuda": 128}
"""Texts generated together at most with `batch_size: auto`. More do not make a CPU faster; on a GPU, reading their keys
and values then takes longer than reading the weights."""
ONE_QUEUE = {"cpu": False, "cuda": True}
"""Slots that a shard leaves are given to the next one. Then the last bits of a log-probability depend on texts of other
shards, as they depend on the batch size. On a CPU, which does not compute empty slots, shards are apart, and a resumed
run writes the same bytes."""
ALIGNED = 64
"""Positions of a slot on a GPU are a multiple of this: kernels take aligned masks, and meet fewer shapes."""


def positions(needed: int, device: str) -> int:
    """Positions of a slot for `needed` ones."""
    return -(-needed // ALIGNED) * ALIGNED if device == "cuda" else needed


def slot_bytes(text_config: Any, positions: int, itemsize: int) -> int:
    """Bytes of the keys and values of one text.

    Args:
        text_config: configuration of the language model.
        positions: of the slot.
        itemsize: bytes of a number.
    """
    width: int = 2 * text_config.num_hidden_layers * text_config.num_key_value_heads * text_config.head_dim
    return width * positions * itemsize
