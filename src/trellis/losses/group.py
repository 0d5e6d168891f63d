"""Losses on sampled rows and their advantages: pure functions of a `PolicyStep`, un-reduced, never summed.

ρ is π/π_old of a token; with importance_sampling_level="sequence" it is the row's geometric mean exp(mean_t log π/π_old), as in
GSPO (Zheng et al. 2025, 2507.18071, eq. 7), with its gradient. A is the advantage, sg stops the gradient, W is π/π_old of the
whole row. A log-ratio beyond ±20 counts as ±20, without gradient, so that no ratio overflows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .group_registry import (
    GRPO_LOSSES,
    GroupObjective,
    Per,
    PolicyStep,
    Terms,
    bind_group_loss,
    grpo_loss,
    token_weights,
)
from .policy import k3

__all__ = [
    "GRPO_LOSSES",
    "GroupObjective",
    "Per",
    "PolicyStep",
    "Terms",
    "bind_group_loss",
    "grpo_loss",
    "token_weights",
]

LIMIT = 20.0
"""The largest log-ratio, in nats."""


def ratio_of(log_ratio: Tensor) -> Tensor:
    """exp(log_ratio), the exponent within ±20."""
    return log_ratio.clamp(-LIMIT, LIMIT).exp()


def importance_ratio(step: PolicyStep, level: str) -> Tensor:
    """[B, T]: π/π_old of each token, or of the row as a geometric mean; 0 outside the mask."""
    log_ratio = step.log_ratio()
    if level == "sequence":
        log_ratio = log_ratio.sum(1, keepdim=True) / step.lengths.clamp(min=1)[:, None]
    return torch.where(step.mask, ratio_of(log_ratio), 0.0)


def crossings(
    ratio: Tensor, advantages: Tensor, epsilon: float, epsilon_high: float
) -> tuple[Tensor, Tensor]:
    """(low, high), float like `ratio`: 1 where ρ < 1 − ε and A < 0; 1 where ρ > 1 + ε_high and A > 0."""
    low = (ratio < 1 - epsilon) & (advantages < 0)
    high = (ratio > 1 + epsilon_high) & (advantages > 0)
    return low.to(ratio.dtype), high.to(ratio.dtype)


def clipped(
    step: PolicyStep, epsilon: float, epsilon_high: float | None, delta: float | None, level: str
) -> Terms:
    """−min(min(ρ, δ)A, clip(ρ, 1 − ε, 1 + ε_high)A). Without δ the plain ρ (Schulman et al. 2017, 1707.06347, eq. 7); δ bounds
    the loss where A < 0 (INTELLECT-2, 2505.07291); ε_high apart from ε is DAPO's clip-higher."""
    above = epsilon if epsilon_high is None else epsilon_high
    ratio, advantages = importance_ratio(step, level), step.token_advantages()
    plain = ratio if delta is None else ratio.clamp(max=delta)
    loss = -torch.minimum(plain * advantages, ratio.clamp(1 - epsilon, 1 + above) * advantages)
    low, high = crossings(ratio, advantages, epsilon, above)
    return Terms(loss, ratio, low, high)


@grpo_loss(per="row")
def grpo(
    step: PolicyStep,
    *,
    epsilon: float,
    epsilon_high: float | None,
    delta: float | None,
    importance_sampling_level: str,
) -> Terms:
    """−min(min(ρ, δ)A, clip(ρ, 1 − ε, 1 + ε_high)A). Shao et al. 2024 (2402.03300), eq. 3, without its KL; the objective of GSPO,
    Zheng et al. 2025 (2507.18071), with the ratio of the sequence."""
    return clipped(step, epsilon, epsilon_high, delta, importance_sampling_level)


@grpo_loss(per="token")
def bnpo(
    step: PolicyStep,
    *,
    epsilon: float,
    epsilon_high: float | None,
    delta: float | None,
    importance_sampling_level: str,
) -> Terms:
    """As `grpo`, every token of an optimizer step weighing the same.

    TRL's loss of this name divides by the tokens of the local micro-batch, which makes the gradient depend on how a step is cut.
    Where a rollout is one optimizer step, this is `dapo`.
    """
    return clipped(step, epsilon, epsilon_high, delta, importance_sampling_level)


@grpo_loss(per="length")
def dr_grpo(
    step: PolicyStep,
    *,
    epsilon: float,
    epsilon_high: float | None,
    delta: float | None,
    importance_sampling_level: str,
) -> Terms:
    """As `grpo`, so that no row weighs less for being long. Liu et al. 2025 (2503.20783), §3.2; it takes scale_rewards="none"."""
    return clipped(step, epsilon, epsilon_high, delta, importance_sampling_level)


@grpo_loss(per="rollout")
def dapo(
    step: PolicyStep,
    *,
    epsilon: float,
    epsilon_high: float | None,
    delta: float | None,
    importance_sampling_level: str,
) -> Terms:
    """As `grpo`, every token of a rollout weighing the same. Yu et al. 2025 (2503.14476), eq. 8.

    Where a rollout is one optimizer step, this is `bnpo`.
    """
    return clipped(step, epsilon, epsilon_high, delta, importance_sampling_level)


def unclipped(step: PolicyStep, loss: Tensor, ratio: Tensor, **extra: Tensor) -> Terms:
    """The terms of a loss whose ratio meets no clip."""
    nothing = torch.zeros_like(ratio, requires_grad=False)
    masked = {name: torch.where(step.mask, value.detach(), 0.0) for name, value in extra.items()}
    return Terms(torch.where(step.mask, loss, 0.0), ratio, nothing, nothing, masked)


CAP = (
    lambda v: v is None or v >= 1,
    "None (5.0) or a number of at least 1: here it is the largest weight itself, not its distance from 1",
)


@grpo_loss(per="rollout", rules={"epsilon_high": CAP})
def cispo(step: PolicyStep, *, epsilon_high: float | None, importance_sampling_level: str) -> Terms:
    """−sg(min(ρ, ε_high)) · A · log π. MiniMax-M1 2025 (2506.13585), its weight bounded above alone. ε_high is 5 where none is
    given, as in Khatri et al. 2025 (ScaleRL, 2510.13786).

    extra: `cispo_clip`, 1 where ρ > ε_high and A > 0.
    """
    cap = 5.0 if epsilon_high is None else epsilon_high
    ratio, advantages = importance_ratio(step, importance_sampling_level), step.token_advantages()
    loss = -ratio.detach().clamp(max=cap) * advantages * torch.where(step.mask, step.logps, 0.0)
    return unclipped(step, loss, ratio, cispo_clip=((ratio > cap) & (advantages > 0)).to(ratio.dtype))


@grpo_loss(per="row")
def sapo(
    step: PolicyStep,
    *,
    sapo_temperature_pos: float,
    sapo_temperature_neg: float,
    importance_sampling_level: str,
) -> Terms:
    """−(4/τ) σ(τ(ρ − 1)) · A, τ by the sign of A: a soft gate instead of a clip. Gao et al. 2025 (2511.20347)."""
    ratio, advantages = importance_ratio(step, importance_sampling_level), step.token_advantages()
    tau = torch.where(advantages > 0, sapo_temperature_pos, sapo_temperature_neg).to(ratio.dtype)
    return unclipped(step, -4 / tau * torch.sigmoid(tau * (ratio - 1)) * advantages, ratio)


@grpo_loss(per="sum")
def luspo(step: PolicyStep, *, epsilon: float, epsilon_high: float | None, delta: float | None) -> Terms:
    """|o_i| times −min(min(ρ, δ)A, clip(ρ, 1 − ε, 1 + ε_high)A), ρ always of the sequence. Liu et al. 2026 (2602.05261): GSPO
    without its preference for short answers."""
    return clipped(step, epsilon, epsilon_high, delta, "sequence")


@grpo_loss(per="rollout")
def vespo(
    step: PolicyStep,
    *,
    vespo_k_pos: float,
    vespo_lambda_pos: float,
    vespo_k_neg: float,
    vespo_lambda_neg: float,
) -> Terms:
    """−sg(φ) · A · log π, φ = W^k exp(λ(1 − W)), k and λ by the sign of A. Shen et al. 2026 (2602.10693).

    W is the product over the row's tokens, not their mean. extra: `phi`, the φ of each token's row.
    """
    advantages = step.token_advantages()
    log_weight = step.log_ratio().detach().sum(1, keepdim=True).clamp(-LIMIT, LIMIT)
    positive = advantages >= 0
    k = torch.where(positive, vespo_k_pos, vespo_k_neg).to(log_weight.dtype)
    rate = torch.where(positive, vespo_lambda_pos, vespo_lambda_neg).to(log_weight.dtype)
    phi = torch.exp(k * log_weight + rate * (1 - log_weight.exp()))
    loss = -phi * advantages * torch.where(step.mask, step.logps, 0.0)
    return unclipped(step, loss, importance_ratio(step, "token"), phi=phi)


def sequence_clipped(
    step: PolicyStep, *, epsilon: float, epsilon_high: float | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(loss, ratio, low, high), each [B]: −min(ρA, clip(ρ, 1 − ε, 1 + ε_high)A) with ρ = exp(Σ log π − Σ log π_old) of the row.

    RLOO as REINFORCE with the probability of the whole answer: Ahmadian et al. 2024 (2402.14740), clipped as in PPO.
    """
    above = epsilon if epsilon_high is None else epsilon_high
    ratio, advantages = ratio_of(step.log_ratio().sum(1)), step.row_advantages()
    loss = -torch.minimum(ratio * advantages, ratio.clamp(1 - epsilon, 1 + above) * advantages)
    low, high = crossings(ratio, advantages, epsilon, above)
    return loss, ratio, low, high


def kl_term(logps: Tensor, ref_logps: Tensor, ratio: Tensor | None = None) -> Tensor:
    """Like `logps`: the estimate k3 of KL(π ‖ π_ref), times `ratio` π/π_old where given, gradient included.

    With the ratio it is unbiased for tokens that an older policy sampled, and so is its gradient: DeepSeek-V3.2 2025
    (2512.02556), §3.1. A difference beyond ±20 nats counts as ±20.
    """
    difference = (logps - ref_logps).clamp(-LIMIT, LIMIT)
    estimate = k3(difference, torch.zeros_like(difference))
    return estimate if ratio is None else ratio * estimate
