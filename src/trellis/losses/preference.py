"""Losses on pairs of answers: pure functions of a `Pair`, one value per pair, never reduced.

r_c, r_r are the log-ratios log π/π_ref of the chosen and the rejected answer, Δ = r_c − r_r, σ the logistic function.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from ..types import Pair, PairStep
from .registry import DPO_LOSSES, Objective, bind, dpo_loss

__all__ = ["DPO_LOSSES", "Objective", "bind", "dpo_loss"]


def logistic(z: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """−(1 − ε) log σ(z) − ε log σ(−z): the cross-entropy of σ(z) with a label that is wrong with probability ε."""
    return -(1 - label_smoothing) * logsigmoid(z) - label_smoothing * logsigmoid(-z)


@dpo_loss
def sigmoid(pair: Pair, *, beta: float, label_smoothing: float) -> Tensor:
    """−(1 − ε) log σ(βΔ) − ε log σ(−βΔ). Rafailov et al. 2023 (2305.18290), eq. 7; ε > 0: conservative DPO (Mitchell 2023)."""
    return logistic(beta * (pair.chosen - pair.rejected), label_smoothing)


@dpo_loss
def hinge(pair: Pair, *, beta: float) -> Tensor:
    """max(0, 1 − βΔ). Zhao et al. 2023 (2305.10425) with the normalisation of Liu et al. 2023 (2309.06657)."""
    return relu(1 - beta * (pair.chosen - pair.rejected))


@dpo_loss(reverse_kl_only=True)
def ipo(pair: Pair, *, beta: float) -> Tensor:
    """(Δ̄ − 1/2β)², Δ̄ of log-ratios per token. Azar et al. 2023 (2310.12036), eq. 17, averaged as its authors advised."""
    mean = pair.per_token()
    return (mean.chosen - mean.rejected - 1 / (2 * beta)) ** 2


@dpo_loss
def exo_pair(pair: Pair, *, beta: float, label_smoothing: float) -> Tensor:
    """KL(σ(±βΔ) ‖ (1 − ε, ε)), ε at least 10⁻³. Ji et al. 2024 (2402.00856), eq. 16."""
    eps = max(label_smoothing, 1e-3)
    z = beta * (pair.chosen - pair.rejected)
    right, wrong = torch.log(z.new_tensor(1 - eps)), torch.log(z.new_tensor(eps))
    return z.sigmoid() * (logsigmoid(z) - right) + (-z).sigmoid() * (logsigmoid(-z) - wrong)


@dpo_loss
def nca_pair(pair: Pair, *, beta: float) -> Tensor:
    """−log σ(βr_c) − ½ log σ(−βr_c) − ½ log σ(−βr_r). Chen et al. 2024 (2402.05369), with two answers."""
    chosen, rejected = beta * pair.chosen, beta * pair.rejected
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


@dpo_loss
def robust(pair: Pair, *, beta: float, label_smoothing: float) -> Tensor:
    """(−(1 − ε) log σ(βΔ) + ε log σ(−βΔ)) / (1 − 2ε): unbiased when a share ε of the labels is flipped. Chowdhury et al. 2024
    (2403.00409)."""
    z, eps = beta * (pair.chosen - pair.rejected), label_smoothing
    return (-(1 - eps) * logsigmoid(z) + eps * logsigmoid(-z)) / (1 - 2 * eps)


@dpo_loss
def bco_pair(pair: Pair, *, beta: float, mean_reward: float) -> Tensor:
    """−log σ(βr_c − δ) − log σ(−(βr_r − δ)), δ the mean reward so far. Jung et al. 2024 (2404.04656).

    δ is the mean of βr over the pairs of all earlier optimizer steps, so that it is one number within a step.
    """
    return -logsigmoid(beta * pair.chosen - mean_reward) - logsigmoid(mean_reward - beta * pair.rejected)


@dpo_loss(reverse_kl_only=True)
def sppo_hard(pair: Pair, *, beta: float) -> Tensor:
    """(r_c − 1/2β)² + (r_r + 1/2β)². Wu et al. 2024 (2405.00675), with hard win rates 1 and 0."""
    half = 1 / (2 * beta)
    return (pair.chosen - half) ** 2 + (pair.rejected + half) ** 2


def matched(own: Tensor, other: Tensor, index: Tensor) -> Tensor:
    """[P]: for item index[i] of `own`, the item of `other` that has the same rank."""
    ranks = own.argsort(stable=True).argsort()
    return other.sort().values[ranks[index]]


@dpo_loss(reverse_kl_only=True)
def aot(pair: Pair, *, beta: float, label_smoothing: float, step: PairStep) -> Tensor:
    """Logistic in β(u_(k) − v_(k)): u, v the margins log π(y_c) − log π(y_r) of policy and reference, each sorted over the whole
    optimizer step. Melnyk et al. 2024 (2406.05882), its variant for pairs."""
    whole = step.pairs
    policy = whole.chosen_logps - whole.rejected_logps
    reference = policy - (whole.chosen - whole.rejected)
    margin = pair.chosen_logps - pair.rejected_logps
    return logistic(beta * (margin - matched(policy, reference, step.index)), label_smoothing)


@dpo_loss(reverse_kl_only=True)
def aot_pair(pair: Pair, *, beta: float, label_smoothing: float, step: PairStep) -> Tensor:
    """Logistic in β(r_c(k) − r_r(k)): the log-ratios of the chosen and those of the rejected answers, each sorted over the whole
    optimizer step. Melnyk et al. 2024 (2406.05882), its variant for
    unpaired answers (the name is TRL 0.26's).

    The value of pair i is that of its chosen answer and the rejected one of equal rank. Both move: the gradient of pair i's own
    rejected answer comes from the chosen one of its rank.
    """
    whole = step.pairs
    below = matched(whole.chosen, whole.rejected, step.index)
    above = matched(whole.rejected, whole.chosen, step.index)
    value = logistic(beta * (pair.chosen - below), label_smoothing)
    other = logistic(beta * (above - pair.rejected), label_smoothing)
    return value + other - other.detach()


@dpo_loss
def apo_zero(pair: Pair, *, beta: float) -> Tensor:
    """1 − σ(βr_c) + σ(βr_r): chosen up, rejected down. D'Oosterlinck et al. 2024 (2408.06266), eq. 7."""
    return 1 - torch.sigmoid(beta * pair.chosen) + torch.sigmoid(beta * pair.rejected)


@dpo_loss
def apo_down(pair: Pair, *, beta: float) -> Tensor:
    """σ(βr_c) + 1 − σ(βΔ): both down, the rejected more. D'Oosterlinck et al. 2024 (2408.06266), eq. 8."""
    return torch.sigmoid(beta * pair.chosen) + 1 - torch.sigmoid(beta * (pair.chosen - pair.rejected))


@dpo_loss
def discopop(pair: Pair, *, beta: float, discopop_tau: float) -> Tensor:
    """(1 − g)(−log σ(βΔ)) + g exp(−βΔ), g = σ(βΔ/τ). Lu et al. 2024 (2406.08414), eq. 5."""
    z = beta * (pair.chosen - pair.rejected)
    # g exp(−z) as one exponential: apart, they are 0 · ∞ where z is far below 0.
    exponential = torch.exp(logsigmoid(z / discopop_tau) - z)
    return (-z / discopop_tau).sigmoid() * -logsigmoid(z) + exponential


@dpo_loss(reverse_kl_only=True)
def sft(pair: Pair) -> Tensor:
    """−log π(y_c|x) / |y_c|: imitation of the chosen answer, as one part of MPO. Wang et al. 2024 (2411.10442)."""
    return -pair.per_token().chosen_logps


@dpo_loss(reverse_kl_only=True)
def sigmoid_norm(pair: Pair, *, beta: float, label_smoothing: float) -> Tensor:
    """Logistic in βΔ̄, Δ̄ of log-ratios per token. Lambert et al. 2024 (Tülu 3, 2411.15124)."""
    mean = pair.per_token()
    return logistic(beta * (mean.chosen - mean.rejected), label_smoothing)


DPO_LOSSES["aot_unpaired"] = DPO_LOSSES["aot_pair"]  # its name since TRL 1.0
