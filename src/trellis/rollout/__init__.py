"""Completions from prompts: the door to generation engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .engine import sample
from .modes import evaluation
from .params import Completion, RolloutStats, SamplingParams
from .rows import spread, to_batch
from .stops import stop_ids

__all__ = [
    "Completion",
    "RolloutStats",
    "Sampler",
    "SamplingParams",
    "evaluation",
    "sample",
    "spread",
    "stop_ids",
    "to_batch",
]


class Sampler(Protocol):
    """What an engine offers; `functools.partial(sample, model)` is one."""

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        *,
        n: int = 1,
        seeds: Sequence[int],
    ) -> list[Completion]:
        """`n` completions per prompt, sample j of prompt i at i·n + j."""
        ...
