"""Keys and values of what the model has read, in slots that are allocated once.

transformers' dynamic cache copies everything it holds at every new token; at 4,096 image tokens that is most of what
a decoding step moves in memory. Here every request has a slot, a new token is written into room that is already there,
and the slot of a finished request is given to the next one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch


class Slots:
    """Room for `slots` requests of up to `length` positions each, for all layers; what transformers takes as a cache.

    Say with `reading` or `writing` what the next forward pass does. It needs masks of four dimensions and position ids,
    so that transformers asks the cache for nothing but `update`.
    """

    is_initialized = True
    joins = True
    """Prompts may be read into free slots while others are being written."""

    def __init__(self, slots: int, length: int, *, layers: int) -> None:
        self.slots = slots
        self.length = length
        self._count = layers
        self._states: torch.Tensor | None = None
        self._first = 0
        self._padding: Sequence[int] = ()
        self._places: torch.Tensor | None = None
        self._width = 0

    def reading(self, first: int, padding: Sequence[int]) -> None:
        """The next pass reads whole prompts, left-padded by `padding` positions, into the slots from `first` on."""
        self._first, self._padding, self._places = first, padding, None

    def writing(self, places: torch.Tensor, width: int) -> None:
        """The next pass reads one more token for each of the first slots, to stand at `places`, int64[n], < `width`."""
        self._places, self._width = places, width

    def move(self, source: int, target: int) -> None:
        """Copy the content of a slot to another one."""
        if self._states is not None:
            self._states[:, :, target] = self._states[:, :, source]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep states, real[B, key-value heads, new, D], and return all that their queries attend to."""
        if self._states is None:
            # In one piece: layer by layer it would lie between what is there for a moment, and leave holes.
            self._states = keys.new_zeros((self._count, 2, self.slots, keys.shape[1], self.length, keys.shape[3]))
        all_keys, all_values = self._states[layer]
        if self._places is None:
            for row, padding in enumerate(self._padding):
                end = keys.shape[2] - padding
                all_keys[self._first + row, :, :end] = keys[row, :, padding:]
                all_values[self._first + row, :, :end] = values[row, :, padding:]
            return keys, values
        rows = torch.arange(len(self._places), device=keys.device)
        all_keys[rows, :, self._places] = keys[:, :, 0]
        all_values[rows, :, self._places] = values[:, :, 0]
        return all_keys[: len(rows), :, : self._width], all_values[: len(rows), :, : self._width]


def give_back() -> None:
    """Let go of what decoding images and loading weights have freed: allocators keep it, below the model's own peak."""
    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on `device`."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        available = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
    except (OSError, IndexError):  # not Linux: no more than a hint is lost
        return 2**33
    return 1024 * int(available)
