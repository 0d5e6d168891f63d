"""Several rewards behind one call: functions, async functions and classifiers, weighted and checked."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .classifiers import ClassifierReward
from .contract import Verdict, verdicts
from .functions import BackgroundLoop, FunctionReward
from .request import RewardError, RewardRequest

Reward = FunctionReward | ClassifierReward


@dataclass
class RewardResult:
    """What B completions earned from F rewards.

    total [B] float32: Σ_f weight_f · reward_f over the rewards that apply, 0 where none does; per_function [B, F] float32,
    unweighted, NaN where a reward does not apply; per_token: None, or where a reward spoke about tokens one float32 tensor of
    each completion's length that sums to its total (what was said about a whole completion lies on its last token).
    """

    total: Tensor
    per_function: Tensor
    per_token: list[Tensor] | None = None

    @property
    def applicable(self) -> Tensor:
        """[B] bool: at least one reward applies."""
        return ~self.per_function.isnan().all(1)


class RewardSet:
    """Rewards behind one call. `reward_funcs`: one or several Python functions, async functions, sequence classifiers or their
    names; `weights` default to 1; `processing_classes`: the tokenizers of the classifiers, one per reward (None: the
    classifier's own) or one for all; `default_processing_class`: for a classifier that has none, the policy's.

    Raises TypeError for what is no reward, ValueError for numbers that do not match and classifiers that cannot score.
    """

    def __init__(
        self,
        reward_funcs: Any,
        *,
        weights: Sequence[float] | None = None,
        processing_classes: Any = None,
        default_processing_class: Any = None,
        device: torch.device | str | None = None,
        rows: int = 64,
    ) -> None:
        specs = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
        if not specs:
            raise ValueError("reward_funcs is empty; expected at least one function, classifier or name")
        self.weights = _weights(weights, len(specs))
        tokenizers = _one_each(processing_classes, len(specs))
        options = {"default": default_processing_class, "device": device, "rows": rows}
        self.members: list[Reward] = [_reward(s, t, options) for s, t in zip(specs, tokenizers, strict=True)]
        self.names = _unique([reward.name for reward in self.members])
        self._loop: BackgroundLoop | None = None

    def check(self, columns: Iterable[str]) -> None:
        """Raises RewardError when a function needs an argument that the data (its `columns`) does not have."""
        columns = list(columns)
        for reward in self.members:
            reward.check(columns)

    def __call__(
        self,
        *,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        columns: Mapping[str, Sequence[Any]] | None = None,
        state: Any = None,
        finished: Sequence[bool] | None = None,
    ) -> RewardResult:
        """What the completions earned. Async functions run together, beside the others.

        Raises RewardError (a ValueError) when a reward raises or returns anything but finite numbers and None.
        """
        request = RewardRequest(prompts, completions, completion_ids, columns or {}, state, finished)
        rows = [
            verdicts(name, returned, request)
            for name, returned in zip(self.names, self._returned(request), strict=True)
        ]
        return combine(rows, self.weights, [len(ids) for ids in completion_ids])

    def _returned(self, request: RewardRequest) -> list[Any]:
        """What each reward returned, in order."""
        started: dict[int, Future[Any]] = {}
        returned: list[Any] = [None] * len(self.names)
        try:
            for i, reward in enumerate(self.members):
                if reward.is_async:
                    coroutine = self._guarded(i, request, lambda reward=reward: reward(request))
                    started[i] = self._loop_for_async().start(coroutine)
            for i, reward in enumerate(self.members):
                if i not in started:
                    returned[i] = self._guarded(i, request, lambda reward=reward: reward(request))
                if inspect.iscoroutine(returned[i]):  # a plain function that hands on an async one's
                    started[i] = self._loop_for_async().start(returned[i])
            for i, future in started.items():
                returned[i] = self._guarded(i, request, future.result)
        finally:
            for future in started.values():
                future.cancel()
        return returned

    def _loop_for_async(self) -> BackgroundLoop:
        if self._loop is None:
            self._loop = BackgroundLoop()
        return self._loop

    def _guarded(self, i: int, request: RewardRequest, call: Any) -> Any:
        try:
            return call()
        except RewardError:
            raise
        except Exception as error:
            what = f"{len(request)} completions" + (
                f", the first is {request.excerpt(0)}" if len(request) else ""
            )
            raise RewardError(
                f"reward {self.names[i]!r} raised {type(error).__name__}: {error} (on {what}; columns {sorted(request.columns)})"
            ) from error


def combine(
    rows: Sequence[Sequence[Verdict]], weights: Sequence[float], lengths: Sequence[int]
) -> RewardResult:
    """F lists of B verdicts as one result; `lengths` are the completions' tokens."""
    scores = [[_score(verdict) for verdict in row] for row in rows]
    per_function = torch.tensor(scores, dtype=torch.float64).reshape(len(rows), len(lengths)).T
    weight = torch.tensor(weights, dtype=torch.float64)
    total = (per_function.nan_to_num(0.0) * weight).sum(1)
    if not bool(total.float().isfinite().all()):
        raise RewardError(
            f"the weighted rewards exceed float32: {total.tolist()}; use smaller weights {list(weights)}"
        )
    spoken = any(isinstance(verdict, list) for row in rows for verdict in row)
    per_token = (
        [_placed([row[i] for row in rows], weights, n) for i, n in enumerate(lengths)] if spoken else None
    )
    return RewardResult(total.float(), per_function.float(), per_token)


def _score(verdict: Verdict) -> float:
    if verdict is None:
        return math.nan
    return math.fsum(verdict) if isinstance(verdict, list) else verdict


def _placed(said: Sequence[Verdict], weights: Sequence[float], length: int) -> Tensor:
    """[length] float32: every reward's word about one completion, where it landed."""
    placed = torch.zeros(length, dtype=torch.float64)
    for verdict, weight in zip(said, weights, strict=True):
        if isinstance(verdict, list):
            placed += weight * torch.tensor(verdict, dtype=torch.float64)
        elif verdict is not None and length:
            placed[-1] += weight * verdict
    return placed.float()


def _reward(spec: Any, processing_class: Any, options: dict[str, Any]) -> Reward:
    if isinstance(spec, str | os.PathLike | nn.Module):
        return ClassifierReward(spec, processing_class, **options)
    if callable(spec):
        return FunctionReward(spec)
    raise TypeError(
        f"a reward is a function, a sequence classifier or its name, found {type(spec).__name__}; write e.g. "
        "reward_funcs=lambda completions: [float(len(c)) for c in completions]"
    )


def _weights(weights: Sequence[float] | None, count: int) -> list[float]:
    values = [1.0] * count if weights is None else [float(w) for w in weights]
    if len(values) != count:
        raise ValueError(f"{count} rewards need {count} reward_weights, found {len(values)}")
    if not all(map(math.isfinite, values)):
        raise ValueError(f"reward_weights must be finite, found {values}")
    return values


def _one_each(processing_classes: Any, count: int) -> list[Any]:
    if not isinstance(processing_classes, list | tuple):
        return [processing_classes] * count
    if len(processing_classes) != count:
        raise ValueError(
            f"{count} rewards need {count} processing classes (None for a function), found {len(processing_classes)}"
        )
    return list(processing_classes)


def _unique(names: Sequence[str]) -> list[str]:
    """The names, a repeated one with its number: length, length_2."""
    unique: list[str] = []
    for name in names:
        number = 1
        while (candidate := name if number == 1 else f"{name}_{number}") in unique:
            number += 1
        unique.append(candidate)
    return unique
