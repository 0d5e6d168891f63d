"""Several rewards behind one call: functions, async functions and classifiers, weighted and checked."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from .calls import Calls, Reward
from .classifiers import ClassifierReward
from .contract import Verdict, verdicts
from .functions import FunctionReward
from .names import named
from .request import Notes, RewardError, RewardRequest

logger = logging.getLogger(__name__)


@dataclass
class RewardResult:
    """What B completions earned from F rewards.

    total [B] float32: Σ_f weight_f · reward_f over the rewards that apply, 0 where none does; per_function [B, F] float32,
    unweighted, NaN where a reward does not apply; per_token: None, or where a reward spoke about tokens one float32 tensor of
    each completion's length that sums to its total (what was said about a whole completion lies on its last token).
    extra: the columns [B] that functions gave to log_extra; logged: what they gave to log_metric, call by call; failures: how
    many completions a reward failed on, of the rewards that did and were skipped.
    """

    total: Tensor
    per_function: Tensor
    per_token: list[Tensor] | None = None
    extra: dict[str, list[Any]] = field(default_factory=dict)
    logged: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def applicable(self) -> Tensor:
        """[B] bool: at least one reward applies."""
        return ~self.per_function.isnan().all(1)


class RewardSet:
    """Rewards behind one call. `reward_funcs`: one or several Python functions, async functions, sequence classifiers, or names
    (of a ready reward, of a function `package.module.function`, of a classifier); `weights` default to 1;
    `processing_classes`: the tokenizers of the classifiers, one per reward (None: the classifier's own) or one for all;
    `default_processing_class`: for a classifier that has none, the policy's; `on_error`: "raise", or "skip": what failed counts
    as not applicable; `timeout`: seconds for each call of a function.

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
        on_error: str = "raise",
        timeout: float | None = None,
    ) -> None:
        specs = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
        if not specs:
            raise ValueError("reward_funcs is empty; expected at least one function, classifier or name")
        self.weights = _weights(weights, len(specs))
        tokenizers = _one_each(processing_classes, len(specs))
        options = {"default": default_processing_class, "device": device, "rows": rows}
        self.members: list[Reward] = [_reward(s, t, options) for s, t in zip(specs, tokenizers, strict=True)]
        self.names = _unique([reward.name for reward in self.members])
        if on_error not in ("raise", "skip"):
            raise ValueError(
                f"on_error={on_error!r}; expected 'raise', or 'skip' to count a failure as not applicable"
            )
        if timeout is not None and not (0 < timeout < math.inf):
            raise ValueError(f"timeout={timeout!r}; expected seconds > 0, or None for no limit")
        self.on_error = on_error
        self._calls = Calls(self.members, self.names, timeout)
        self._warned: set[str] = set()

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

        Raises RewardError (a ValueError) when an argument of a function has no column, and, unless on_error="skip", when a reward
        raises, takes too long or returns anything but finite numbers and None.
        """
        request = RewardRequest(prompts, completions, completion_ids, columns or {}, state, finished)
        self.check(request.columns)
        notes = [Notes(name, len(request)) for name in self.names]
        failures: dict[str, int] = {}
        all_returned = self._calls(request, notes, stop=self.on_error == "raise")
        rows = [self._verdicts(i, said, request, failures) for i, said in enumerate(all_returned)]
        result = combine(rows, self.weights, [len(ids) for ids in completion_ids])
        return replace(result, extra=_columns(notes), logged=_numbers(notes), failures=failures)

    def _failed(self, i: int, error: RewardError, rows: int, failures: dict[str, int]) -> None:
        """What is done about a failure that concerns `rows` completions."""
        name = self.names[i]
        if self.on_error == "raise":
            raise error
        failures[name] = failures.get(name, 0) + rows
        if name not in self._warned:
            self._warned.add(name)
            logger.warning(
                "a reward failed and counts as not applicable to %d of the completions (on_error='skip'; each reward is reported "
                "once): %s",
                rows,
                str(error),
            )
        for told in (error, error.__cause__):
            if (
                told is not None
            ):  # tracebacks hold on to the completions, and to models, until the next collection
                told.__traceback__ = None

    def _verdicts(
        self, i: int, returned: Any, request: RewardRequest, failures: dict[str, int]
    ) -> list[Verdict]:
        """[B]: what reward i said, None where it failed."""
        try:
            if isinstance(returned, RewardError):
                raise returned
            found = verdicts(self.names[i], returned, request)
        except RewardError as error:
            self._failed(i, error, len(request), failures)
            return [None] * len(request)
        for verdict in found:
            if isinstance(verdict, RewardError):
                self._failed(i, verdict, 1, failures)
        return [None if isinstance(verdict, RewardError) else verdict for verdict in found]


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


def _columns(notes: Sequence[Notes]) -> dict[str, list[Any]]:
    """The columns of all functions; one that two of them named belongs to the first, the other's has its function before it."""
    found: dict[str, list[Any]] = {}
    for note in notes:
        for column, values in note.extra.items():
            found[f"{note.name}/{column}" if column in found else column] = values
    return found


def _numbers(notes: Sequence[Notes]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for note in notes:
        for name, values in note.logged.items():
            found.setdefault(name, []).extend(values)
    return found


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
    if isinstance(spec, str):
        spec = named(spec)
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
