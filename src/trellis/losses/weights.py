"""Weights of tokens and of pairs."""

from __future__ import annotations

import torch
from torch import Tensor


def length_desensitised(mask: Tensor, partner_length: Tensor, alpha: float) -> Tensor:
    """[B, T] float32: 1 on the first min(own, partner's) masked-in tokens of each row, `alpha` on those after them, 0 elsewhere.

    LD-DPO, Liu et al. 2024 (2409.06411): what only the longer answer has counts for less. mask [B, T] bool;
    partner_length [B]: tokens of the row's other answer.
    """
    public = mask.cumsum(1) <= partner_length[:, None]
    weight = mask.float()
    return torch.where(public, weight, alpha * weight)


def on_policy_weight(
    logps: Tensor, squared_logps: Tensor, chosen_length: Tensor, rejected_length: Tensor
) -> Tensor:
    """[P], at most 1, without gradient: how likely the policy would write both answers. WPO, Zhou et al. 2024 (2406.11827):
    Π over both sides of exp(mean over tokens of log p(token) − log Σ_v p(v)²).

    logps [2P, T]: of the chosen, then the rejected, 0 outside the answers; squared_logps: under the distribution ∝ p², that is
    at half the temperature, which makes log p − log Σ p² their difference.
    """
    lengths = torch.cat([chosen_length, rejected_length]).clamp(min=1)
    mean = (squared_logps - logps).detach().sum(1) / lengths
    chosen, rejected = mean.chunk(2)
    return torch.exp(chosen + rejected).clamp(max=1.0)
