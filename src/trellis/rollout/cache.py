"""Key-value caches that grow by blocks, where the stock one copies everything it holds for every new token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

ROOM = 64
"""New tokens between two copies."""


def growing_cache(config: Any) -> DynamicCache:
    """An empty cache for a model of this configuration; other layers (sliding windows) stay as transformers made them."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class GrowingLayer(DynamicLayer):
    """Keys and values [R, heads, L, head_dim], as views into stores with room after the last token."""

    def __init__(self) -> None:
        super().__init__()
        self.stores: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append [R, heads, l, head_dim]; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.stores = [new[:, :, :0] for new in (key_states, value_states)]
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if end > self.stores[0].shape[-2]:
            self.stores = [_with_room(store, length, end + ROOM) for store in self.stores]
        for store, new in zip(self.stores, (key_states, value_states), strict=True):
            store[:, :, length:end] = new
        self._show(end)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """The rows `beam_idx`, in that order; a row may be repeated."""
        if not self.stores:
            return
        length = self.get_seq_length()
        self.stores = [store.index_select(0, beam_idx.to(store.device)) for store in self.stores]
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = (store[:, :, :length] for store in self.stores)


class CompletionLayer(GrowingLayer):
    """Keys and values of completions alone. prompts: those [1, heads, l, head_dim] of each prompt that they go on from."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[tuple[Tensor, Tensor]] = []
        self.lengths: list[int] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append to the completions; where `lengths` is set, these are prompts of so many tokens, end to end: they are kept."""
        key_states = key_states.to(
            value_states.dtype
        )  # under autocast rotary keys are float32, and attention's are not
        if self.lengths is None:
            return super().update(key_states, value_states)
        parts = (
            [x.contiguous() for x in states.split(self.lengths, 2)] for states in (key_states, value_states)
        )
        self.prompts += zip(*parts, strict=True)
        return key_states, value_states


def completion_cache(config: Any) -> DynamicCache:
    """An empty cache of `CompletionLayer` for a model of this configuration. Raises TypeError where its layers are of a kind that
    keeps more than keys and values."""
    cache = DynamicCache(config=config)
    unknown = {type(layer) for layer in cache.layers} - {DynamicLayer, DynamicSlidingWindowLayer}
    if unknown:
        raise TypeError(f"prompts cannot be shared in layers of {sorted(kind.__name__ for kind in unknown)}")
    cache.layers = [CompletionLayer() for _ in cache.layers]
    return cache


def _with_room(store: Tensor, length: int, room: int) -> Tensor:
    rows, heads, _, size = store.shape
    larger = torch.empty(rows, heads, room, size, dtype=store.dtype, device=store.device)
    larger[:, :, :length] = store[:, :, :length]
    return larger
