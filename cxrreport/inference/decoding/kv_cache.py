"""Keys and values of the positions that the model has read, in slots that are allocated once.

The dynamic cache of transformers copies everything it holds for every new token; at 4,096 image tokens this is most of
the memory traffic of a decoding step. Here a new token is written into its slot, and a slot is reused when its request
has finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class SlotCache:
    """A cache of transformers with a fixed number of slots, for all layers.

    Call `begin_prompts` or `begin_step` before each forward pass. The pass needs masks of four dimensions and position
    ids; transformers then calls nothing but `update`.

    Args:
        slots: requests that fit.
        length: positions of each slot.
        layers: layers of the language model.
    """

    is_initialized = True
    accepts_new_prompts = True
    """Prompts can be read into free slots while other texts are being generated."""

    def __init__(self, slots: int, length: int, *, layers: int) -> None:
        self.slots = slots
        self.length = length
        self._layers = layers
        self._states: torch.Tensor | None = None
        self._first = 0
        self._padding: Sequence[int] = ()
        self._places: torch.Tensor | None = None
        self._rows = torch.zeros(0, dtype=torch.int64)
        self._width = 0

    def begin_prompts(self, first: int, padding: Sequence[int]) -> None:
        """Announce a pass over whole prompts, left-padded by `padding` positions, for the slots from `first` on."""
        self._first, self._padding, self._places = first, padding, None

    def begin_step(self, places: torch.Tensor, width: int) -> None:
        """Announce a pass over one token for each of the first slots, at `places`, int64[n], all below `width`."""
        self._places, self._width = places, width
        self._rows = torch.arange(len(places), device=places.device)

    def stored_by_step(self) -> torch.Tensor:
        """Copy of what the announced step has stored, real[slots, layers, 2, key-value heads, D]."""
        if self._states is None or self._places is None:
            raise RuntimeError("no step has been announced, or nothing has been stored")
        return self._states[:, :, self._rows, :, self._places]

    def clear_step(self) -> None:
        """Set to zero what the announced step has stored."""
        if self._states is not None and self._places is not None:
            self._states[:, :, self._rows, :, self._places] = 0

    def copy_slot(self, source: int, target: int) -> None:
        """Copy the content of one slot to another."""
        if self._states is not None:
            self._states[:, :, target] = self._states[:, :, source]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store states, real[B, key-value heads, new, D], and return all that their queries attend to."""
        if self._states is None:
            # One allocation for all layers, which does not fragment memory.
            self._states = keys.new_zeros((self._layers, 2, self.slots, keys.shape[1], self.length, keys.shape[3]))
        all_keys, all_values = self._states[layer]
        if self._places is None:
            for row, padding in enumerate(self._padding):
                end = keys.shape[2] - padding
                all_keys[self._first + row, :, :end] = keys[row, :, padding:]
                all_values[self._first + row, :, :end] = values[row, :, padding:]
            return keys, values
        rows, count = self._rows, len(self._places)
        all_keys[rows, :, self._places] = keys[:, :, 0]
        all_values[rows, :, self._places] = values[:, :, 0]
        return all_keys[:count, :, : self._width], all_values[:count, :, : self._width]
