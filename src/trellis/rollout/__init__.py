"""Completions from prompts: the door to generation engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import nn

from .engine import sample
from .episodes import Driver, Episodes, OneTurn
from .in_process import InProcess
from .modes import evaluation
from .params import Completion, RolloutStats, SamplingParams
from .rows import spread, to_batch
from .stops import stop_ids

__all__ = [
    "Completion",
    "Driver",
    "Engine",
    "Episodes",
    "InProcess",
    "OneTurn",
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
    """What samples; `functools.partial(sample, model)` is one."""

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


class Engine(Sampler, Protocol):
    """A sampler that a trainer keeps up with its weights.

    exact: it samples from the very weights and numbers that are trained, so no correction is needed. An engine that samples with
    weights of its own, and so can while the policy is trained on, also says `apart = True`.
    """

    exact: bool

    def sync(self, model: nn.Module, step: int) -> None:
        """Take over the weights of `model`, as they are at optimizer step `step`; called before every rollout, on every rank."""
        ...

    def close(self) -> None:
        """Let go of what it holds; called when training ends."""
        ...
