"""The engine that needs nothing else: the policy itself samples, in this process."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .engine import sample
from .params import Completion, RolloutStats, SamplingParams


class InProcess:
    """Samples with the weights that are trained, at most `rows` rows at once; `stats` adds up what that took."""

    exact = True

    def __init__(self, rows: int | None = None) -> None:
        self.rows = rows
        self.model: nn.Module | None = None
        self.stats = RolloutStats()

    def sync(self, model: nn.Module, step: int) -> None:
        """Sample with `model` from now on."""
        self.model = model

    def __call__(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams, *, n: int = 1, seeds: Sequence[int]
    ) -> list[Completion]:
        """See `sample`."""
        if self.model is None:
            raise ValueError("this engine has no model yet; call sync(model, step) before sampling")
        return sample(self.model, prompts, params, n=n, seeds=seeds, rows=self.rows, stats=self.stats)

    def close(self) -> None:
        """Nothing is held."""
        self.model = None
