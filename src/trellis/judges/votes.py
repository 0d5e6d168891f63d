"""How often one set of answers beats another, and how sure that is.

A vote is a number in [0, 1]: 1 where the first set's answer won, 0 where it lost, ½ for a tie, a probability from a soft judge.
None or NaN is an answer of the judge that could not be read: it is counted and is no vote.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

Votes = Sequence[float | None]
_SURE = 20.0
"""The largest log-odds that are told apart from certainty: 1 − 2e-9."""


@dataclass(frozen=True)
class WinRate:
    """`rate` is the mean vote (NaN without one) inside its confidence interval `low`…`high`; of the `n` votes `wins` are above ½,
    `losses` below and `ties` at it; `invalid` answers are not among them."""

    rate: float
    low: float
    high: float
    wins: int
    losses: int
    ties: int
    invalid: int
    n: int

    def __str__(self) -> str:
        counts = f"{self.wins} wins, {self.losses} losses, {self.ties} ties, {self.invalid} invalid"
        return f"{self.rate:.1%} [{self.low:.1%}, {self.high:.1%}] ({counts})"


def win_rate(votes: Votes, *, groups: Sequence[Hashable] | None = None, confidence: float = 0.95) -> WinRate:
    """The mean vote with Wilson's interval (1927).

    (p + z²/2m ± z·sqrt(p(1−p)/m + z²/4m²)) / (1 + z²/m), where m is the number of votes. Votes of one group (both orders of a
    pair, several samples of a prompt) are not independent: with `groups` m is p(1−p)/V, at most the number of votes, where V is
    the variance of p over groups, G/(G−1) · Σ_g (Σ_{i∈g} (v_i − p))² / n². A group that is unanimous like all others
    counts as one vote. Raises ValueError for a vote outside [0, 1].
    """
    kept = _valid(votes, groups)
    v, group = kept.votes, kept.groups
    rate = float(v.mean()) if len(v) else math.nan
    m = (
        float(len(v))
        if groups is None
        else _effective(rate, _variance(v - rate, group) / max(len(v), 1) ** 2, group)
    )
    return _result(kept, rate, m, confidence)


def length_controlled_win_rate(
    votes: Votes,
    lengths: Sequence[float],
    other_lengths: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    penalty: float = 1.0,
) -> WinRate:
    """The win rate that would be seen were the answers of a pair equally long: Dubois et al. 2024 (2404.04475), without their
    term for the difficulty of a prompt, which needs many models.

    logit P(win) = a + b·tanh(Δ/σ) is fitted to the votes, Δ = length − other length (in any unit), σ its standard deviation,
    with the penalty `penalty`·b²/2; the rate is 1/(1 + e^−a). With few rows the penalty keeps b near 0 and the rate near the
    plain one; where all Δ are equal b is 0 and nothing is taken out. The interval is Wilson's, with the sandwich variance of a
    over groups (default: each vote is one), and never narrower than that of so many plain votes. Counts are `win_rate`'s.
    """
    if not len(votes) == len(lengths) == len(other_lengths):
        raise ValueError(
            f"found {len(votes)} votes, {len(lengths)} lengths and {len(other_lengths)} other lengths; expected one of each"
        )
    kept = _valid(votes, groups)
    if not kept.rows:
        return _result(kept, math.nan, 0.0, confidence)
    x = _features([float(lengths[i]) - float(other_lengths[i]) for i in kept.rows])
    weights, hessian = _logistic(x, kept.votes, penalty)
    residual = kept.votes - torch.sigmoid(x @ weights)
    rate = float(torch.sigmoid(weights[0]))
    influence = torch.linalg.solve(hessian, (x * residual[:, None]).T)[0]
    variance = _variance(influence, kept.groups) * (rate * (1 - rate)) ** 2
    return _result(kept, rate, _effective(rate, variance, kept.groups), confidence)


@dataclass
class _Kept:
    """The valid votes [n] float64, the rows they came from, the number of each one's group [n], and how many were invalid."""

    votes: Tensor
    rows: list[int]
    groups: Tensor
    invalid: int


def _valid(votes: Votes, groups: Sequence[Hashable] | None) -> _Kept:
    if groups is not None and len(groups) != len(votes):
        raise ValueError(f"found {len(votes)} votes and {len(groups)} groups; expected one group per vote")
    rows = [i for i, vote in enumerate(votes) if vote is not None and not math.isnan(vote)]
    wrong = [(i, votes[i]) for i in rows if not 0 <= votes[i] <= 1]  # type: ignore[operator]
    if wrong:
        row, vote = wrong[0]
        raise ValueError(
            f"vote {row} is {vote}, expected a number from 0 (lost) to 1 (won), or None for an answer that could not be read"
        )
    number: dict[Hashable, int] = {}
    names = range(len(votes)) if groups is None else groups
    ids = [number.setdefault(names[i], len(number)) for i in rows]
    values = torch.tensor([float(votes[i]) for i in rows], dtype=torch.float64)  # type: ignore[arg-type]
    return _Kept(values, rows, torch.tensor(ids, dtype=torch.long), len(votes) - len(rows))


def _variance(terms: Tensor, group: Tensor) -> float:
    """G/(G−1) · Σ_g (Σ_{i∈g} term_i)²: the variance of Σ term_i, were the groups drawn anew; infinite for fewer than two."""
    count = len(group.unique())
    if count < 2:
        return math.inf
    sums = torch.zeros(count, dtype=terms.dtype).index_add_(0, group, terms)
    return count / (count - 1) * float((sums * sums).sum())


def _effective(rate: float, variance: float, group: Tensor) -> float:
    """As many independent votes as have this variance: at least 1, at most as many as there are."""
    n, count = len(group), len(group.unique())
    if not n:
        return 0.0
    spread = rate * (1 - rate)
    if spread < 1e-6:  # unanimous: nothing was seen of how much groups differ
        return float(count)
    return n if variance <= spread / n else max(1.0, spread / variance)


def _result(kept: _Kept, rate: float, m: float, confidence: float) -> WinRate:
    low, high = _wilson(rate, m, confidence)
    v = kept.votes
    wins, losses = int((v > 0.5).sum()), int((v < 0.5).sum())
    return WinRate(rate, low, high, wins, losses, len(v) - wins - losses, kept.invalid, len(v))


def _wilson(rate: float, m: float, confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, found {confidence}")
    if m == 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    centre = (rate + z2 / (2 * m)) / (1 + z2 / m)
    half = math.sqrt(z2 * (rate * (1 - rate) / m + z2 / (4 * m * m))) / (1 + z2 / m)
    return max(0.0, centre - half), min(1.0, centre + half)


def _features(differences: list[float]) -> Tensor:
    """[n, 2]: 1 and tanh(Δ/σ)."""
    delta = torch.tensor(differences, dtype=torch.float64)
    sigma = float(delta.std(correction=0))
    scaled = torch.tanh(delta / sigma) if sigma > 0 else torch.zeros_like(delta)
    return torch.stack([torch.ones_like(scaled), scaled], dim=1)


def _logistic(x: Tensor, v: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Intercept and slope [2] of the penalised logistic regression of v on x, by Newton's method, and its Hessian [2, 2]."""
    ridge = torch.diag(torch.tensor([1e-9, max(penalty, 1e-9)], dtype=x.dtype))
    weights, hessian = torch.zeros(2, dtype=x.dtype), ridge
    for _ in range(200):
        p = torch.sigmoid(x @ weights)
        hessian = (x.T * (p * (1 - p))) @ x + ridge
        step = torch.linalg.solve(hessian, x.T @ (v - p) - ridge @ weights).clamp(-1, 1)
        weights = (weights + step).clamp(-_SURE, _SURE)
        if float(step.abs().max()) < 1e-10:
            break
    return weights, hessian
