"""Rows laid end to end: where each segment is in a sequence, and what it goes on from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor

DESCRIPTION = torch.int32


@dataclass(frozen=True)
class Segments:
    """lengths: tokens of each segment, in order; after: the earlier segment that each goes on from, −1 for none."""

    lengths: list[int]
    after: list[int]

    def describe(self, device: torch.device) -> Tensor:
        """In place of an attention mask: [1, 1, 2, S + 1]."""
        ends = torch.tensor([0, *self.lengths]).cumsum(0)
        return torch.stack([ends, torch.tensor([*self.after, -1])]).to(DESCRIPTION)[None, None].to(device)

    @classmethod
    def read(cls, mask: Tensor) -> Segments:
        """The inverse of `describe`."""
        ends, after = mask[0, 0].tolist()
        return cls([end - start for start, end in zip(ends[:-1], ends[1:], strict=True)], after[:-1])


Memory = list[tuple[Tensor, Tensor]]
"""Keys and values [1, kv, n, D] of n tokens each."""


def repeated(x: Tensor, times: int) -> Tensor:
    """[1, kv, n, D] → [1, kv · times, n, D]: keys or values for each head that reads them."""
    return x if times == 1 else x.repeat_interleave(times, dim=1)


@dataclass(frozen=True)
class Pieces:
    """The segments of a sequence, each of which may go on from another: one of this pass, or one of `earlier`."""

    segments: Segments
    earlier: Memory | None = None

    @cached_property
    def spans(self) -> list[slice]:
        """Each segment's place."""
        ends = accumulate(self.segments.lengths, initial=0)
        return [slice(*pair) for pair in pairwise(ends)]

    @property
    def sight(self) -> int:
        """The most tokens that one may see, itself among them."""
        lengths = self.segments.lengths
        before = lengths if self.earlier is None else [k.shape[2] for k, _ in self.earlier]
        return max(
            n + (before[i] if i >= 0 else 0) for n, i in zip(lengths, self.segments.after, strict=True)
        )

    def before(self, at: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor] | None:
        """Keys and values of what segment `at` goes on from, those of this pass being in `key` and `value` [1, kv, N, D]; None
        where it begins."""
        after = self.segments.after[at]
        if after < 0:
            return None
        if self.earlier is not None:
            return self.earlier[after]
        return key[:, :, self.spans[after]], value[:, :, self.spans[after]]
