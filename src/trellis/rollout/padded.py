"""Prompts read with padding on their left, and a memory of its own for each row: for any decoder-only model of transformers.

Left padding exists in this file only.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..models import cache_name
from .cache import growing_cache
from .params import RolloutStats


@dataclass
class Rows:
    """Rows between two forward passes. cache, logits [R, V] and position [R] (of the next token) are those of the tokens read;
    mask [R, L] int64, or None without padding; optional: which arguments the model's own forward takes."""

    model: nn.Module
    cache: Any
    logits: Tensor
    position: Tensor
    mask: Tensor | None
    optional: set[str]

    def start(self, at: Sequence[int], last: bool) -> Rows:
        """The rows `at`, repeated where asked; unless it is the `last` time, these stay as they are."""
        rows = self if last else copy.copy(self)
        if not last:
            rows.cache = copy.deepcopy(self.cache)
        if list(at) != list(range(len(self.logits))):
            rows.select(list(at))
        return rows

    def select(self, keep: list[int]) -> None:
        """Only the rows `keep`, in that order; a row may be repeated."""
        at = torch.tensor(keep, device=self.logits.device)
        self.cache.reorder_cache(at)
        self.logits, self.position = self.logits[at], self.position[at]
        self.mask = None if self.mask is None else self.mask[at]

    def advance(self, tokens: Tensor) -> None:
        """Read one token per row."""
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        self.forward(tokens[:, None], self.position[:, None])
        self.position = self.position + 1

    def forward(self, ids: Tensor, position: Tensor) -> None:
        """Add `ids` to the memory; logits are those after the last of them."""
        asked = {"position_ids": position, "logits_to_keep": 1}
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            use_cache=True,
            return_dict=True,
            **{cache_name(self.model): self.cache},
            **{name: value for name, value in asked.items() if name in self.optional},
        )
        self.logits = output.logits[:, -1]


def read(model: nn.Module, prompts: Sequence[Sequence[int]], stats: RolloutStats) -> Rows:
    """Every prompt read once, all together."""
    device = next(model.parameters()).device
    lengths = torch.tensor([len(p) for p in prompts])
    width = int(lengths.max())
    # Any id inside the embedding will do for padding; the tokenizer's pad id may lie outside.
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.as_tensor(prompt, dtype=torch.long)
    real = torch.arange(width)[None] >= (width - lengths)[:, None]
    mask = None if bool(real.all()) else real.long().to(device)
    position = (real.long().cumsum(1) - 1).clamp(min=0).to(device)
    stats.prefill_tokens += int(lengths.sum())
    stats.pad_tokens += int((~real).sum())
    cache = growing_cache(model.config)
    rows = Rows(model, cache, torch.empty(0), lengths.to(device), mask, _arguments(model))
    rows.forward(ids.to(device), position)
    return rows


def _arguments(model: nn.Module) -> set[str]:
    """Names that the model's own forward takes (an adapter's wrapper takes anything)."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return set(inspect.signature(base.forward).parameters)
