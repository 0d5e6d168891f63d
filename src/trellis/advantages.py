"""From rewards to advantages: pure functions on `[B, T]` tensors, no Python loop over T.

Per-token arguments follow the alignment rule of `types`; `mask` is True on the tokens of the response, which lie side by side.
"""

from __future__ import annotations

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
