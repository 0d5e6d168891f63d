"""What a judge is, under the names and with the calls that TRL's have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any


class BaseJudge(ABC):
    """Says something about each of several completions, or groups of them."""

    @abstractmethod
    def judge(self, prompts: Any, completions: Any, shuffle_order: bool = True) -> list[Any]:
        """One verdict per prompt."""


class BaseRankJudge(ABC):
    """Puts the completions of each prompt in order."""

    @abstractmethod
    def judge(self, prompts: Any, completions: Any, shuffle_order: bool = True) -> list[list[int]]:
        """Per prompt the numbers of its completions, the best first."""


class BasePairwiseJudge(BaseJudge):
    """Says which of two completions is better."""

    @abstractmethod
    def judge(self, prompts: Any, completions: Any, shuffle_order: bool = True) -> list[Any]:
        """Per prompt the number of the better completion, 0 or 1, and −1 where the judge's answer could not be read."""


class BaseBinaryJudge(BaseJudge):
    """Says whether a completion meets a condition."""

    @abstractmethod
    def judge(  # type: ignore[override]  # TRL's third argument is another one here
        self, prompts: Any, completions: Any, gold_completions: Any = None, shuffle_order: bool = True
    ) -> list[int]:
        """Per prompt 1 or 0, and −1 where the judge's answer could not be read."""


class AllTrueJudge(BaseBinaryJudge):
    """1 where all of `judges` say 1, −1 where one says −1, else 0: the mixture of judges of Xu et al. 2024 (2409.20370)."""

    def __init__(self, judges: Sequence[BaseBinaryJudge]) -> None:
        if not judges:
            raise ValueError("AllTrueJudge needs at least one judge, found none")
        self.judges = list(judges)

    def judge(  # type: ignore[override]
        self, prompts: Any, completions: Any, gold_completions: Any = None, shuffle_order: bool = True
    ) -> list[int]:
        """See `BaseBinaryJudge`. Raises ValueError for what is no verdict."""
        found = [judge.judge(prompts, completions, gold_completions, shuffle_order) for judge in self.judges]
        return [self._together(row) for row in zip(*found, strict=True)]

    @staticmethod
    def _together(row: Sequence[int]) -> int:
        wrong = [verdict for verdict in row if verdict not in (-1, 0, 1)]
        if wrong:
            raise ValueError(f"a binary judge said {wrong[0]!r}, expected 1, 0, or -1 for no answer")
        return -1 if -1 in row else int(all(row))
