"""Keys and values of what the model has read, kept with room to grow.

transformers' dynamic cache copies everything it holds at every new token; at 4,096 image tokens that is most of what
a decoding step moves in memory. This one writes a new token into room that is already there.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

SPARE = 64
"""Positions by which a full buffer grows."""


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer. `keys` and `values`, real[B, key-value heads, length, D], are views of larger buffers."""

    _key_room: torch.Tensor
    _value_room: torch.Tensor

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states, real[B, key-value heads, new, D], and return all of them up to here."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._key_room = key_states[:, :, :0]
            self._value_room = value_states[:, :, :0]
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._key_room.shape[-2]:
            self._key_room = _grown(self._key_room[:, :, :start], end + SPARE, key_states)
            self._value_room = _grown(self._value_room[:, :, :start], end + SPARE, value_states)
        self._key_room[:, :, start:end] = key_states
        self._value_room[:, :, start:end] = value_states
        self.keys, self.values = self._key_room[:, :, :end], self._value_room[:, :, :end]
        # The first states are whole as they come; the buffers behind the views are not contiguous.
        return (key_states, value_states) if start == 0 else (self.keys, self.values)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep only the rows `indices`, int64[b], of the batch."""
        length = self.get_seq_length()
        self._key_room, self._value_room = self._key_room[indices], self._value_room[indices]
        self.keys, self.values = self._key_room[:, :, :length], self._value_room[:, :, :length]


def _grown(old: torch.Tensor, length: int, like: torch.Tensor) -> torch.Tensor:
    room = like.new_empty((like.shape[0], like.shape[1], length, like.shape[3]))
    room[:, :, : old.shape[2]] = old
    return room


def new_cache() -> Cache:
    """An empty cache for one batch, of as many layers as the model turns out to have."""
    return Cache(layer_class_to_replicate=RoomyLayer)
