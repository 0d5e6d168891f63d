"""What forward passes compute, beside what they have to: counted where somebody asks, from shapes, masks and ids alone.

A token is needed once; a prompt once for all rows of its group. Everything else that goes through a trunk is padding, a prompt
that its group had already in the same pass, or one that an earlier part of the same batch had (a group that was cut). Layers
computed again in backward (gradient checkpointing, the head's chunks) are not counted: memory is what they are paid in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import nn

from ..types import Rollout, TokenBatch

Prompt = tuple[int, int, bytes]
"""(the trunk that reads it, its group, its ids)."""


@dataclass
class Work:
    """The work of forward passes, added up: trunk_tokens = useful_tokens + pad_tokens + repeated_tokens + cut_tokens.

    passes: forward passes; trunk_tokens: what went through a trunk; repeated_tokens: prompts of rows whose group had them in the
    same pass; cut_tokens: prompts whose group had them in another part of the same batch or of the optimizer step's rollout rows;
    head_rows: states that were projected to the vocabulary, trained_tokens: those that had to be, one per masked-in token.
    """

    passes: int = 0
    trunk_tokens: int = 0
    useful_tokens: int = 0
    pad_tokens: int = 0
    repeated_tokens: int = 0
    cut_tokens: int = 0
    head_rows: int = 0
    trained_tokens: int = 0
    paused: bool = field(default=False, repr=False, compare=False)
    step: set[Prompt] = field(default_factory=set, repr=False, compare=False)
    """Prompts that passes with gradients have read in this optimizer step."""
    parts: set[Prompt] | None = field(default=None, repr=False, compare=False)
    """Prompts that parts of the batch at hand have read, while one is scored in parts."""

    @property
    def wasted_tokens(self) -> int:
        """Tokens that went through a trunk without need."""
        return self.trunk_tokens - self.useful_tokens

    @property
    def wasted_rows(self) -> int:
        """States that were projected to the vocabulary without need."""
        return self.head_rows - self.trained_tokens

    def add(self, trunk: nn.Module, batch: TokenBatch, computed: int, projected: int | None) -> None:
        """One pass over `batch`: `computed` tokens, and `projected` states (None: it has no vocabulary)."""
        needed, prompts = _needed(trunk, batch)
        earlier = self._earlier(batch)
        cut = sum(length for prompt, length in prompts.items() if prompt in earlier)
        earlier.update(prompts)
        real = int(batch.attention_mask.sum())
        self.passes += 1
        self.trunk_tokens += computed
        self.useful_tokens += needed - cut
        self.pad_tokens += max(0, computed - real)
        self.repeated_tokens += min(computed, real) - needed
        self.cut_tokens += cut
        if projected is not None:
            self.head_rows += projected
            self.trained_tokens += int(batch.loss_mask.sum())

    def _earlier(self, batch: TokenBatch) -> set[Prompt]:
        if self.parts is not None:
            return self.parts
        # Rows of a rollout know their group wherever they are; other batches number their groups for themselves.
        return self.step if isinstance(batch, Rollout) and torch.is_grad_enabled() else set()


def _needed(trunk: nn.Module, batch: TokenBatch) -> tuple[int, dict[Prompt, int]]:
    """(tokens of a batch, each group's prompt once; those prompts and their lengths)."""
    ids, total = batch.input_ids.cpu().numpy(), 0
    prompts: dict[Prompt, int] = {}
    facts = torch.stack([batch.lengths, batch.prompt_len, batch.group], dim=1).tolist()
    for row, (length, prompt, group) in enumerate(facts):
        key = (id(trunk), group, ids[row, :prompt].tobytes())
        total += length - (prompt if key in prompts else 0)
        if prompt:
            prompts[key] = prompt
    return total, prompts


_counting: ContextVar[Work | None] = ContextVar("counting", default=None)


@contextmanager
def counting(work: Work) -> Iterator[Work]:
    """Inside, the forward passes of this thread are added to `work`, except while it is paused."""
    before = _counting.set(work)
    try:
        yield work
    finally:
        _counting.reset(before)


def count(trunk: nn.Module, batch: TokenBatch, computed: int, projected: int | None = None) -> None:
    """A pass over `batch` was made; see `Work.add`. Nothing is read where nobody counts."""
    work = _counting.get()
    if work is not None and not work.paused:
        work.add(trunk, batch, computed, projected)


@contextmanager
def one_batch() -> Iterator[None]:
    """Inside, passes are over parts of one batch: a prompt that two of them read was cut."""
    work = _counting.get()
    if work is None:
        yield
        return
    before, work.parts = work.parts, set()
    try:
        yield
    finally:
        work.parts = before
