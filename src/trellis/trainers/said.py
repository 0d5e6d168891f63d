"""What was asked, answered and noted in a rollout, in words: for completion tables and user metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate.utils import gather_object

from ..monitor import spread
from ..rewards import RewardResult
from ..rollout import Completion, Episodes

SHOWN = 8
"""Completions of a rollout that are kept to be looked at."""


def said_as(prompt: Any, text: str, completion: Completion) -> Any:
    """A completion in the form of its prompt: a text, or messages."""
    if completion.messages is not None:
        return completion.messages
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def examples(
    rows: Sequence[Mapping[str, Any]],
    episodes: Episodes,
    verdict: RewardResult,
    decode: Callable[[Sequence[Completion]], list[str]],
) -> list[dict[str, Any]]:
    """A few completions with their rewards, spread over what this process sampled."""
    few = spread(range(len(rows)), SHOWN)
    picked = [episodes.completions[i] for i in few]
    return [
        {
            "prompt": rows[i]["prompt"],
            "completion": said_as(rows[i]["prompt"], text, completion),
            "score": float(verdict.total[i]),
            "finished": completion.finish_reason == "stop",
        }
        for i, text, completion in zip(few, decode(picked), picked, strict=True)
    ]


@dataclass(frozen=True)
class Said:
    """A rollout's prompts and completions, texts or messages, and the columns that rewards noted beside them."""

    prompts: list[Any]
    completions: list[Any]
    extra: dict[str, list[Any]]

    def of_all_ranks(self, world: int) -> Said:
        """The rows of rank 0, then of rank 1, …, on every rank."""
        if world == 1:
            return self
        parts: Sequence[Said] = gather_object([self])
        names = dict.fromkeys(name for part in parts for name in part.extra)
        blank = {name: [part.extra.get(name, [None] * len(part.prompts)) for part in parts] for name in names}
        return Said(
            [prompt for part in parts for prompt in part.prompts],
            [completion for part in parts for completion in part.completions],
            {name: [value for column in columns for value in column] for name, columns in blank.items()},
        )


class Notes:
    """Figures that reward functions log under names of their own: averaged over calls between two logs, on all ranks."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def add(self, logged: Mapping[str, Sequence[float]]) -> None:
        """Note what was logged, call by call."""
        for name, values in logged.items():
            total, count = self.sums.get(name, [0.0, 0.0])
            self.sums[name] = [total + sum(values), count + len(values)]

    def means(self, world: int) -> dict[str, float]:
        """The averages since the last call, which begins a new window; on every rank, in the same order."""
        parts: Sequence[Mapping[str, list[float]]] = [self.sums] if world == 1 else gather_object([self.sums])
        self.sums = {}
        totals: dict[str, list[float]] = {}
        for part in parts:
            for name, (total, count) in part.items():
                before = totals.get(name, [0.0, 0.0])
                totals[name] = [before[0] + total, before[1] + count]
        return {name: total / count for name, (total, count) in totals.items() if count}
