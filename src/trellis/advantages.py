"""From rewards to advantages: pure functions, no Python loop over T or over groups.

Per-token arguments follow the alignment rule of `types`; `mask` is True on the tokens of the response, which lie side by side.
Of several samples of one prompt: `group` [B] holds any integers, equal for the samples of one prompt, in any order, ragged or
not; `applies` [B] bool is False where no reward function had anything to say: such a row enters no statistic and its advantage
is 0 (default: every row whose reward is no NaN). Several ranks gather rewards and groups first. Inside all is float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def discounted_sum(x: Tensor, discount: float) -> Tensor:
    """[B, T]: y_t = Σ_{k ≥ 0} discount^k · x_{t+k}, by doubling: log2(T) additions instead of T.

    After round j every y_t holds its first 2^j terms, and y_t + discount^(2^j) · y_{t+2^j} holds the first 2^(j+1).
    """
    y, step, factor = x, 1, discount
    while step < x.shape[-1] and factor != 0.0:
        y = torch.cat([y[..., :-step] + factor * y[..., step:], y[..., -step:]], dim=-1)
        step, factor = 2 * step, factor * factor
    return y


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns [B, T], 0 outside `mask`. Schulman et al. 2016 (1506.02438), eq. 16, episodic: V after the end is 0.

    δ_t = r_t + γ V_{t+1} − V_t;  A_t = Σ_k (γλ)^k δ_{t+k};  returns = A + V.
    """
    values = values * mask
    after = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    delta = (rewards + gamma * after - values) * mask
    advantages = discounted_sum(delta, gamma * lam) * mask
    return advantages, advantages + values


def moments(x: Tensor, mask: Tensor) -> Tensor:
    """[3] float64: count, sum and sum of squares of the masked-in entries. They add up over micro-batches and ranks."""
    picked = x[mask].double()
    return torch.stack([picked.new_tensor(float(picked.numel())), picked.sum(), (picked * picked).sum()])


def whiten(x: Tensor, mask: Tensor, stats: Tensor | None = None, *, shift_mean: bool = True) -> Tensor:
    """(x − μ) / sqrt(σ² + 1e-8) inside `mask` and 0 outside; with `shift_mean=False` the mean is kept.

    `stats` are `moments` summed over everything that is whitened together (all ranks); default: of `x` itself. σ² is the
    unbiased variance; with fewer than two entries it is taken as 1.
    """
    count, total, square = moments(x, mask) if stats is None else stats
    mean = total / count.clamp(min=1)
    var = (square - count * mean * mean).clamp(min=0) / (count - 1).clamp(min=1)
    scale = torch.where(count > 1, torch.rsqrt(var + 1e-8), torch.ones_like(var))
    white = (x.double() - mean) * scale
    return torch.where(mask, white if shift_mean else white + mean, 0.0).to(x.dtype)


def last_token(mask: Tensor) -> Tensor:
    """[B] int64: the position of the last masked-in token of each row (0 for a row without one)."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    return (mask * positions).max(dim=1).values


def place_score(scores: Tensor, mask: Tensor) -> Tensor:
    """[B, T]: each row's score on the last real token of its response, 0 elsewhere (rows without a response get none)."""
    placed = torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device)
    placed[torch.arange(len(mask), device=mask.device), last_token(mask)] = scores
    return placed * mask


SCALES = ("group", "batch", "none")
EPSILON = 1e-4
"""Added to a standard deviation before it divides."""


@dataclass
class Spread:
    """What the groups of a batch look like, all float64 [B]: the rewards with 0 where none applies, the number of the row's group
    members that count, their mean, the row's distance from it and their unbiased standard deviation (0 where fewer than two)."""

    rewards: Tensor
    applies: Tensor
    count: Tensor
    mean: Tensor
    centred: Tensor
    std: Tensor

    @classmethod
    def of(cls, rewards: Tensor, group: Tensor, applies: Tensor | None) -> Spread:
        if rewards.dim() != 1 or group.shape != rewards.shape:
            found = f"{tuple(rewards.shape)} and {tuple(group.shape)}"
            raise ValueError(f"rewards and group must be [B], found {found}")
        counts = ~rewards.isnan() if applies is None else applies.bool()
        values = torch.where(counts, rewards.double(), 0.0)
        ids, of_row = torch.unique(group, return_inverse=True)

        def total(x: Tensor) -> Tensor:
            return x.new_zeros(len(ids)).index_add(0, of_row, x)[of_row]

        def extreme(sign: float) -> Tensor:
            far = torch.where(counts, sign * values, -torch.inf)
            return far.new_full((len(ids),), -torch.inf).scatter_reduce(0, of_row, far, "amax")[of_row]

        count = total(counts.double())
        mean = total(values) / count.clamp(min=1)
        # Where all are equal the rounding of the mean must not look like a difference.
        differs = counts & (extreme(1.0) + extreme(-1.0) > 0)
        centred = torch.where(differs, values - mean, 0.0)
        std = (total(centred * centred) / (count - 1).clamp(min=1)).sqrt()
        return cls(values, counts, count, mean, centred, std)


def batch_std(values: Tensor, counts: Tensor) -> Tensor:
    """Scalar float64: the unbiased standard deviation of the entries that count, 0 for fewer than two."""
    picked = values[counts].double()
    return picked.std(unbiased=True) if len(picked) > 1 else picked.new_zeros(())


def group_statistics(rewards: Tensor, group: Tensor, applies: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(mean, std), each [B] like `rewards`: of the rows of one's own group that count; std unbiased, 0 for fewer than two."""
    spread = Spread.of(rewards, group, applies)
    return spread.mean.to(rewards.dtype), spread.std.to(rewards.dtype)


def group_normalized(
    rewards: Tensor, group: Tensor, *, scale: str = "group", applies: Tensor | None = None
) -> Tensor:
    """[B]: (r − mean of the group) / (std + 1e-4), 0 where a group has one row or no spread. Shao et al. 2024
    (2402.03300), §4.1.2.

    std is the group's; the whole batch's for scale "batch" (2508.08221); for "none" nothing divides (Dr. GRPO, 2503.20783).
    """
    if scale not in SCALES:
        raise ValueError(f"scale={scale!r} is not known; expected one of {', '.join(SCALES)}")
    spread = Spread.of(rewards, group, applies)
    if scale == "none":
        return spread.centred.to(rewards.dtype)
    std = spread.std if scale == "group" else batch_std(spread.rewards, spread.applies)
    return (spread.centred / (std + EPSILON)).to(rewards.dtype)


def leave_one_out(rewards: Tensor, group: Tensor, applies: Tensor | None = None) -> Tensor:
    """[B]: r minus the mean of the other rows of the group; 0 for a row without others. Ahmadian et al. 2024
    (2402.14740)."""
    spread = Spread.of(rewards, group, applies)
    # r − (Σ − r)/(n − 1) = (r − mean) · n/(n − 1)
    return (spread.centred * spread.count / (spread.count - 1).clamp(min=1)).to(rewards.dtype)


def standardized(values: Tensor, applies: Tensor | None = None) -> Tensor:
    """[B]: (x − mean) / (std + 1e-4) over the rows that count, 0 elsewhere and where they do not differ."""
    one = torch.zeros(values.shape, dtype=torch.long, device=values.device)
    return group_normalized(values, one, applies=applies)


def normalize_then_sum(
    per_function: Tensor, weights: Tensor | Sequence[float], group: Tensor, applies: Tensor | None = None
) -> Tensor:
    """[B]: each reward function's rewards normalised in their groups, the weighted sum of these, normalised over the batch.
    GDPO, Liu et al. 2026 (2601.05242).

    per_function [B, F], NaN where a function does not apply; weights [F]. Rows to which none applies get 0.
    """
    if per_function.dim() != 2 or len(weights) != per_function.shape[1]:
        raise ValueError(
            f"{len(weights)} weights for rewards of shape {tuple(per_function.shape)}; expected [B, F]"
        )
    known = ~per_function.isnan()
    counts = known.any(1) if applies is None else applies.bool() & known.any(1)
    known = known & counts[:, None]
    total = torch.zeros(len(per_function), dtype=torch.float64, device=per_function.device)
    for column, weight in enumerate(weights):
        own = group_normalized(per_function[:, column].double(), group, applies=known[:, column])
        total = total + float(weight) * own
    return standardized(total, counts).to(per_function.dtype)


def top_entropy_mask(entropy: Tensor, mask: Tensor, quantile: float) -> Tensor:
    """[B, T] bool: the share `quantile` of the masked-in tokens with the highest entropy, at least one, and all that equal the
    last of them; 1.0 keeps all. Wang et al. 2025 (2506.01939). Raises ValueError outside [0, 1]."""
    if not 0 <= quantile <= 1:
        raise ValueError(
            f"top_entropy_quantile={quantile} is no share; write a number from 0 to 1, such as 0.2"
        )
    values = entropy[mask]
    if quantile == 1 or not len(values):
        return mask
    # The nudge keeps 0.07 · 100, which is a little more than 7 in binary, from counting as 8.
    kept = max(1, math.ceil(quantile * len(values) - 1e-9))
    return mask & (entropy >= values.topk(kept).values[-1])
