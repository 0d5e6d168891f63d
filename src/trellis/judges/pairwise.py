"""Pairwise judges that are shown one answer first: which place an answer gets is decided here, and taken back here."""

from __future__ import annotations

import json
import math
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from .base import BasePairwiseJudge

Asked = list[tuple[Any, Any, Any]]
"""(prompt, the answer shown first, the answer shown second), texts or messages."""


class OrderedJudge(BasePairwiseJudge):
    """A judge that says of `ask`ed triples how probable it is that the answer shown first is the better one.

    Judges prefer a place, often the first. both_orders: each pair is asked about in both orders and the two answers are averaged,
    so that a preference for a place gives ½, a tie. Otherwise shuffle_order decides the place by a coin that depends on `seed`,
    the prompt and the two texts alone: not on the order in which they are passed, nor on what was asked before.
    `agreed` of `compared` pairs got the same verdict in both orders.
    """

    def __init__(self, *, both_orders: bool = False, seed: int = 0) -> None:
        self.both_orders, self.seed = both_orders, seed
        self.agreed = self.compared = 0

    @abstractmethod
    def ask(self, asked: Asked) -> list[float | None]:
        """The probability that the first answer is better, for each triple; None where nothing can be read from the judge."""

    def judge(
        self, prompts: Any, completions: Any, shuffle_order: bool = True, return_scores: bool = False
    ) -> list[Any]:
        """Per prompt the number of the better completion (a tie falls by the coin) or −1; with return_scores the probability that
        completion 0 is the better one, NaN for −1."""
        pairs = checked_pairs(prompts, completions)
        scores = self._scores(prompts, pairs, shuffle_order)
        if return_scores:
            return [math.nan if score is None else score for score in scores]
        return [
            rank(score, self._coin(prompt, pair))
            for score, prompt, pair in zip(scores, prompts, pairs, strict=True)
        ]

    def _scores(self, prompts: Any, pairs: list[Any], shuffle_order: bool) -> list[float | None]:
        if self.both_orders:
            # Side by side, so that a cap on requests ends between pairs.
            found = self.ask(
                [
                    (prompt, *order)
                    for prompt, pair in zip(prompts, pairs, strict=True)
                    for order in (pair, pair[::-1])
                ]
            )
            return [self._mean(a, b) for a, b in zip(found[::2], found[1::2], strict=True)]
        flips = [
            shuffle_order and self._coin(prompt, pair) for prompt, pair in zip(prompts, pairs, strict=True)
        ]
        found = self.ask(
            [
                (prompt, *(pair[::-1] if flip else pair))
                for prompt, pair, flip in zip(prompts, pairs, flips, strict=True)
            ]
        )
        return [
            1 - score if flip and score is not None else score
            for score, flip in zip(found, flips, strict=True)
        ]

    def _mean(self, straight: float | None, turned: float | None) -> float | None:
        """Of both orders; half an answer is none, as it would have the bias of its place."""
        if straight is None or turned is None:
            return None
        self.compared += 1
        self.agreed += (straight > 0.5) == (turned < 0.5) and (straight < 0.5) == (turned > 0.5)
        return 0.5 + (straight - turned) / 2  # exactly ½ where both say the same of a place

    def _coin(self, prompt: Any, pair: Sequence[Any]) -> bool:
        """True puts the second answer first; the same answer comes first when the pair is passed the other way round."""
        first, second = (_hash(self.seed, prompt, answer) for answer in pair)
        return second < first


def _hash(*parts: Any) -> int:
    return zlib.crc32(json.dumps(parts, default=str).encode())


def preferred(first: float, second: float, temperature: float) -> float | None:
    """Bradley and Terry's probability 1/(1 + e^−(first − second)/temperature) from two scores; None where one is no number."""
    odds = (second - first) / temperature
    return None if math.isnan(odds) else 1 / (1 + math.exp(min(700.0, odds)))


def rank(score: float | None, tie: bool) -> int:
    """0, 1 or −1 from the probability that completion 0 is better; `tie` is the number of the winner where it is ½."""
    if score is None or math.isnan(score):
        return -1
    return int(tie) if score == 0.5 else int(score < 0.5)


def checked_pairs(prompts: Any, completions: Any) -> list[tuple[Any, Any]]:
    """The completions as pairs. Raises ValueError where there are not exactly two for each prompt."""
    if len(prompts) != len(completions):
        raise ValueError(f"found {len(prompts)} prompts and {len(completions)} pairs of completions")
    for row, pair in enumerate(completions):
        if isinstance(pair, str) or len(pair) != 2:
            found = "a text" if isinstance(pair, str) else f"{len(pair)} completions"
            raise ValueError(f"prompt {row} has {found}, expected exactly 2 completions to choose from")
    return [(pair[0], pair[1]) for pair in completions]
