"""Losses of policies and critics: pure, un-reduced, `[B, T]` in and `[B, T]` out. Whoever calls them masks and sums."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

KlEstimator = Callable[[Tensor, Tensor], Tensor]

KL_ESTIMATORS: dict[str, KlEstimator] = {}


def kl_estimator(fn: KlEstimator) -> KlEstimator:
    """File an estimator of KL(π ‖ π_ref) under its function's name."""
    KL_ESTIMATORS[fn.__name__] = fn
    return fn


@kl_estimator
def k1(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """log π − log π_ref: unbiased, may be negative for a sample (Schulman 2020, "Approximating KL divergence"). As a number in a
    reward it pulls as the KL does."""
    return logps - ref_logps


@kl_estimator
def k3(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """π_ref/π − 1 − log(π_ref/π): unbiased, never negative, near the reference of lower variance (Schulman 2020). As a number in
    a reward it pulls by ∇KL(π ‖ π_ref) − ∇KL(π_ref ‖ π), which is next to nothing near the reference."""
    log_ratio = ref_logps - logps
    return torch.expm1(log_ratio) - log_ratio


def clipped_surrogate(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, *, cliprange: float, dual_clip: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, ratio, clipped), each [B, T]: −min(ρA, clip(ρ, 1 ± cliprange)A), ρ = π/π_old. Schulman et al. 2017, eq. 7.

    `clipped` is 1 where the bound is the one that counts. `dual_clip` c > 1 also bounds the loss by −cA where A < 0
    (Ye et al. 2020, 1912.09729, eq. 5).
    """
    ratio = torch.exp(logps - old_logps)
    plain = -advantages * ratio
    bounded = -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    loss, clipped = torch.maximum(plain, bounded), (bounded > plain).float()
    if dual_clip is not None:
        ceiling = -advantages * dual_clip
        loss = torch.where(advantages < 0, torch.minimum(loss, ceiling), loss)
    return loss, ratio, clipped


def clipped_value(
    values: Tensor, old_values: Tensor, returns: Tensor, *, cliprange_value: float
) -> tuple[Tensor, Tensor]:
    """(loss, clipped), each [B, T]: ½ max((V − R)², (clip(V, V_old ± cliprange_value) − R)²).

    Huang et al. 2022, "The 37 implementation details of PPO", detail 9; 2403.17031, §A.
    """
    bounded = torch.clamp(values, old_values - cliprange_value, old_values + cliprange_value)
    plain, limited = (values - returns) ** 2, (bounded - returns) ** 2
    return 0.5 * torch.maximum(plain, limited), (limited > plain).float()
