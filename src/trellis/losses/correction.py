"""Weights for rows that another engine, or an older policy, has sampled: no gradients, 0 outside the mask."""

from __future__ import annotations

import torch
from torch import Tensor

from .group_registry import PolicyStep

MODES = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")


def sampling_ratio(old_logps: Tensor, sampled_logps: Tensor, mask: Tensor, *, level: str) -> Tensor:
    """[B, T]: π_old/π_engine of each token, or (`level` "sequence") of its whole row; the exponent within ±20."""
    log_ratio = torch.where(mask, old_logps - sampled_logps, 0.0).detach()
    if level == "sequence":
        log_ratio = log_ratio.sum(1, keepdim=True)
    return torch.where(mask, log_ratio.clamp(-20.0, 20.0).exp(), 0.0)


def correction(
    old_logps: Tensor,
    sampled_logps: Tensor,
    mask: Tensor,
    *,
    mode: str,
    clip_max: float | None,
    clip_min: float | None = None,
) -> Tensor:
    """[B, T]: what each token's loss is multiplied by, because the engine that sampled is not quite the policy that is trained.

    The ratio is the token's or the whole row's; outside [clip_min, clip_max] it is set to the bound (`…_truncate`: Yao et al.
    2025, "Your efficient RL framework secretly brings you off-policy RL training") or to 0 (`…_mask`: Liu et al. 2025, "When
    speed kills stability"). Raises ValueError for a mode that is not one of `MODES`.
    """
    if mode not in MODES:
        raise ValueError(
            f"mode={mode!r} of the sampling correction is not known; expected one of {', '.join(MODES)}"
        )
    level, how = mode.split("_")
    ratio = sampling_ratio(old_logps, sampled_logps, mask, level=level)
    least = 0.0 if clip_min is None else clip_min
    most = float("inf") if clip_max is None else clip_max
    if how == "truncate":
        return torch.where(mask, ratio.clamp(least, most), 0.0)
    return torch.where((ratio >= least) & (ratio <= most), ratio, 0.0)


def off_policy_mask(step: PolicyStep, *, threshold: float) -> Tensor:
    """[B], 1 or 0, like logps: 0 for a row with A < 0 whose mean over tokens of log π_old − log π is above `threshold`.

    `old_logps` of the step are those of whoever sampled. DeepSeek-V3.2 2025 (2512.02556), §3.1, "off-policy sequence masking".
    """
    drift = -step.log_ratio().detach().sum(1) / step.lengths.clamp(min=1)
    stray = (step.row_advantages() < 0) & (drift > threshold)
    return (~stray).to(step.logps.dtype)
