"""The vocabulary a tile at a time: how rows and words are cut, and what is known of rows after some of the words."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 26}
"""Logits alive at once (float32), by device type: 32 MiB on a CPU, 256 MiB on a GPU."""
TILE_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Logits in a tile, by device type: 8 MiB stay near a CPU's caches."""
FEW_WORDS = 1 << 10
"""Fewer words at once would make products too thin."""


def chunk_rows(vocab: int, device: torch.device) -> int:
    """Rows whose logits may all be alive."""
    return max(1, CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cuda"]) // vocab)


def slices(count: int, most: int) -> list[slice]:
    """[0, count) in as few slices of at most `most` as there must be, of about equal size: a short last one would cost as much as
    a long one."""
    parts = max(1, -(-count // most))
    ends = [count * i // parts for i in range(parts + 1)]
    return [slice(a, b) for a, b in zip(ends[:-1], ends[1:], strict=True)]


@dataclass(frozen=True)
class Tiles:
    """Rows at once, and words of the vocabulary at once for those rows."""

    rows: list[slice]
    words: list[slice]

    @classmethod
    def of(cls, count: int, vocab: int, device: torch.device) -> Tiles:
        """All rows at once as far as they go, so that the weight is read, and its gradient written, once."""
        elements = TILE_ELEMENTS.get(device.type, TILE_ELEMENTS["cuda"])
        rows = slices(count, elements // FEW_WORDS)
        most = max(at.stop - at.start for at in rows)
        return cls(rows, slices(vocab, elements // max(1, most)))

    @classmethod
    def whole(cls, count: int, vocab: int, device: torch.device) -> Tiles:
        """All words at once, and few rows."""
        return cls(slices(count, chunk_rows(vocab, device)), [slice(0, vocab)])


Reduced = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


def reduce(z: Tensor, targets: Tensor, entropy: bool, hits: bool) -> Reduced:
    """(log-prob of the target, log-sum-exp, entropy, hit) of logits [c, V], for autograd to differentiate."""
    lse = z.logsumexp(-1)
    logps = z.gather(-1, targets[:, None]).squeeze(-1) - lse
    hit = (z.argmax(-1) == targets).to(z.dtype) if hits else None
    if not entropy:
        return logps, lse, None, hit
    p = (z - lse[:, None]).exp()
    return logps, lse, lse - (p * torch.where(p > 0, z, 0.0)).sum(-1), hit


class Running:
    """`reduce` where no gradient flows, tile by tile: what is known of rows after some of the vocabulary.

    top: the largest logit; total: Σ exp(z − top); moment: Σ exp(z − top)·(z − top), for the entropy.
    """

    def __init__(self, targets: Tensor, dtype: torch.dtype, entropy: bool, hits: bool) -> None:
        self.targets = targets
        self.total = torch.zeros(len(targets), dtype=dtype, device=targets.device)
        self.top = torch.full_like(self.total, torch.finfo(dtype).min)
        self.picked = torch.zeros_like(self.total)
        self.moment = torch.zeros_like(self.total) if entropy else None
        self.best = torch.zeros_like(targets) if hits else None

    def add(self, z: Tensor, first: int) -> None:
        """The logits z [c, W] of the words from `first` on; overwrites z."""
        where, here = within(self.targets, first, z.shape[1])
        self.picked = torch.where(here, z.gather(-1, where).squeeze(-1), self.picked)
        if self.best is not None:
            highest, index = z.max(-1)
            self.best = torch.where(highest > self.top, index + first, self.best)
        else:
            highest = z.amax(-1)
        top = torch.maximum(self.top, highest)
        z.sub_(top[:, None])
        e = z.exp() if self.moment is not None else z.exp_()
        down = (self.top - top).clamp_(min=-1e4)  # exp() of it is 0, and it is finite
        scale, self.top = down.exp(), top
        if self.moment is not None:
            # A logit of −∞ has weight 0 in Σ e·z; exp() of the least finite number is 0 too.
            z.clamp_(min=torch.finfo(z.dtype).min)
            self.moment = scale * (self.moment + down * self.total) + torch.linalg.vecdot(e, z)
        self.total = scale * self.total + e.sum(-1)

    def reduced(self) -> Reduced:
        """As `reduce` gives them."""
        log_total = self.total.log()
        spread = None if self.moment is None else log_total - self.moment / self.total
        hit = None if self.best is None else (self.best == self.targets).to(self.total.dtype)
        return self.picked - self.top - log_total, self.top + log_total, spread, hit


def within(targets: Tensor, first: int, width: int) -> tuple[Tensor, Tensor]:
    """([c, 1] columns of the targets in a tile of `width` words from `first` on, [c] whether they are there at all)."""
    where = targets - first
    return where.clamp(0, width - 1)[:, None], (where >= 0) & (where < width)
