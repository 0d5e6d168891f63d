"""Who leads from prompts to completions: one turn of the policy, or a conversation with tools and environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..metrics import Metric
from ..types import Metrics
from .params import Completion

Row = Mapping[str, Any]


class Turn(Protocol):
    """The policy, as a driver reaches it."""

    def __call__(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], limit: int | None = None
    ) -> list[Completion]:
        """One completion of each prompt, of at most `limit` tokens (None: as the trainer samples); equal prompts side by side are
        read once."""
        ...


@dataclass
class Episodes:
    """B completions and what came with them. prompts: the tokens each was made from (None: the rows' own prompt_ids); columns:
    lists of B values that reward functions may ask for, beside the data's; metrics: (sum, count) by name."""

    completions: list[Completion]
    prompts: list[list[int]] | None = None
    columns: dict[str, list[Any]] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)


class Driver(Protocol):
    """Makes one episode of each prepared row; `metrics` declares what it measures."""

    metrics: list[Metric]

    def __call__(self, rows: Sequence[Row], turn: Turn, seeds: Sequence[int]) -> Episodes:
        """`rows`: one per completion, a prompt's samples side by side; `seeds`: one per completion."""
        ...


class OneTurn:
    """The prompt is answered once."""

    def __init__(self) -> None:
        self.metrics: list[Metric] = []

    def __call__(self, rows: Sequence[Row], turn: Turn, seeds: Sequence[int]) -> Episodes:
        """One completion per row."""
        return Episodes(turn([row["prompt_ids"] for row in rows], seeds))
