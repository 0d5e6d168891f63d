"""What some losses need to know beyond the pairs at hand: all pairs of the optimizer step, and the mean reward so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from ..types import Pair, PairStep


class WholeStep:
    """The pairs of the step that is being taken, handed out in the order of its micro-batches, and the rewards of all steps
    before it. Neither depends on how the step is cut into micro-batches or spread over ranks."""

    def __init__(self) -> None:
        self.pairs: Pair | None = None
        self.at = self.end = 0
        self.known = torch.zeros(2, dtype=torch.float64)
        self.new = torch.zeros(2, dtype=torch.float64)

    @property
    def mean_reward(self) -> float:
        """Mean of βr over both answers of all pairs of earlier steps; 0 before the first."""
        total, count = self.known.tolist()
        return total / count if count else 0.0

    def learn(self, *rewards: Tensor) -> None:
        """Note the rewards of some pairs of this step."""
        for x in rewards:
            self.new = self.new.to(x.device) + torch.stack(
                [x.detach().double().sum(), x.new_tensor(len(x)).double()]
            )

    def settle(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """The step before is over: its rewards, summed over ranks by `reduce`, join those of the steps before it."""
        self.known += reduce(self.new.cpu())
        self.new = torch.zeros(2, dtype=torch.float64)

    def begin(self, parts: Sequence[Pair], accelerator: Any, own: int | None = None) -> None:
        """A step begins: `parts` are this rank's micro-batches, of which the first `own` count (None: all)."""
        count = sum(len(part) for part in parts[:own])
        mine = Pair(**{f.name: torch.cat([getattr(p, f.name) for p in parts])[:count] for f in fields(Pair)})
        if accelerator.num_processes == 1:
            self.pairs, self.at, self.end = mine, 0, len(mine)
            return
        counts = accelerator.gather(torch.tensor([len(mine)], device=accelerator.device)).tolist()
        self.at = sum(counts[: accelerator.process_index])
        self.end = self.at + len(mine)
        every = mine.mapped(lambda x: _gathered(x, counts, accelerator))
        self.pairs = every if len(mine) else None  # what a rank takes along counts nowhere

    def take(self, count: int) -> PairStep | None:
        """The step's pairs, and where the next `count` of this rank are among them; None outside a step."""
        pairs = self.pairs
        if pairs is None:
            return None
        index = torch.arange(self.at, self.at + count, device=pairs.chosen.device)
        self.at += count
        if self.at >= self.end:
            self.pairs = None
        return PairStep(pairs, index)

    def state(self) -> list[float]:
        """What a resumed run needs."""
        return [*self.known.tolist(), *self.new.tolist()]

    def load(self, state: Sequence[float]) -> None:
        """The inverse of `state`."""
        self.known = torch.tensor(state[:2], dtype=torch.float64)
        self.new = torch.tensor(state[2:], dtype=torch.float64)


def _gathered(x: Tensor, counts: Sequence[int], accelerator: Any) -> Tensor:
    padded = x.new_zeros(max(counts))
    padded[: len(x)] = x
    every = accelerator.gather(padded).view(len(counts), -1)
    return torch.cat([row[:count] for row, count in zip(every, counts, strict=True)])
