"""One set of answers against another, by any pairwise judge."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from ..rewards.request import as_text
from .base import BasePairwiseJudge
from .votes import WinRate, length_controlled_win_rate, win_rate


@dataclass(frozen=True)
class Comparison:
    """`votes` [n] for the answers (see `votes`); `rate`: their win rate; `length_controlled`: what it would be at equal lengths,
    counted in characters; `probability`: the mean score of a soft judge (None of a hard one)."""

    votes: list[float | None]
    rate: WinRate
    length_controlled: WinRate
    probability: float | None = None


def compare(
    judge: BasePairwiseJudge,
    prompts: Sequence[Any],
    answers: Sequence[Any],
    others: Sequence[Any],
    *,
    soft: bool = False,
    shuffle_order: bool = True,
    groups: Sequence[Hashable] | None = None,
    chunk: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """How often `answers` beat `others`, texts or messages. Equal answers are a tie, and the judge is not asked about them.

    soft: votes are probabilities and `rate` their mean; otherwise a vote is 0, ½ or 1. `chunk` pairs are judged at once, and
    `progress(done, all)` is called after each. `groups`: see `win_rate`. Raises TypeError for soft where the judge has no scores.
    """
    if not len(prompts) == len(answers) == len(others):
        raise ValueError(
            f"found {len(prompts)} prompts, {len(answers)} answers and {len(others)} others; expected one of each"
        )
    for name, side in (("answers", answers), ("others", others)):
        if None in side:
            raise ValueError(f"{name}[{list(side).index(None)}] is None, expected a text or messages")
    scored = "return_scores" in inspect.signature(judge.judge).parameters
    if soft and not scored:
        raise TypeError(
            f"{type(judge).__name__} gives no scores (its judge() has no return_scores); a soft judge is needed here"
        )
    votes: list[float | None] = [0.5] * len(prompts)
    rows = [i for i in range(len(prompts)) if answers[i] != others[i]]
    for start in range(0, len(rows), chunk):
        part = rows[start : start + chunk]
        pairs = [[answers[i], others[i]] for i in part]
        found = _verdicts(judge, [prompts[i] for i in part], pairs, shuffle_order, scored)
        for i, vote in zip(part, found, strict=True):
            votes[i] = vote
        if progress is not None:
            progress(start + len(part), len(rows))
    valid = [vote for vote in votes if vote is not None]
    probability = sum(valid) / len(valid) if scored and valid else None
    votes = votes if soft else [hard(vote) for vote in votes]
    lengths = [[len(as_text(answer)) for answer in side] for side in (answers, others)]
    return Comparison(
        votes,
        win_rate(votes, groups=groups),
        length_controlled_win_rate(votes, *lengths, groups=groups),
        probability,
    )


def hard(vote: float | None) -> float | None:
    """1, ½ or 0 from a probability."""
    return None if vote is None else (vote > 0.5) + 0.5 * (vote == 0.5)


def _verdicts(
    judge: BasePairwiseJudge, prompts: list[Any], pairs: list[list[Any]], shuffle_order: bool, scored: bool
) -> list[float | None]:
    """A judge's scores, or ranks, of the first answers as votes."""
    if scored:
        scores = judge.judge(prompts, pairs, shuffle_order=shuffle_order, return_scores=True)  # type: ignore[call-arg]
        return [None if math.isnan(score) else float(score) for score in scores]
    ranks = judge.judge(prompts, pairs, shuffle_order=shuffle_order)
    wrong = [rank for rank in ranks if rank not in (-1, 0, 1)]
    if wrong:
        raise ValueError(
            f"the judge said {wrong[0]!r}, expected 0, 1, or -1 for an answer that could not be read"
        )
    return [None if rank == -1 else float(rank == 0) for rank in ranks]
