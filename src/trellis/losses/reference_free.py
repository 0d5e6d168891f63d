"""Losses on pairs of answers that need no reference model: pure, one value per pair, never reduced.

c and r stand for the log-probability of the chosen and of the rejected answer, a sum over its tokens or (`per_token`) their
average; Δ = c − r; σ is the logistic function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from .preference import logistic

CpoFunction = Callable[..., Tensor]

STEEPEST = 20.0
"""The exponent −α·logp beyond which AlphaPO's reward goes on as a straight line: exp(20) is far outside what texts reach, and
exp(1000) is no number."""

CERTAIN = 1e-6
"""As near to 0 as an average log-probability comes where odds are taken: the odds of a sure thing are 10⁶, not infinite."""


@dataclass(frozen=True)
class CpoLoss:
    """A loss and whether it compares averages over tokens instead of sums."""

    function: CpoFunction
    per_token: bool


CPO_LOSSES: dict[str, CpoLoss] = {}
"""{loss_type: loss}."""


@overload
def cpo_loss(function: CpoFunction) -> CpoFunction: ...
@overload
def cpo_loss(*, per_token: bool = ...) -> Callable[[CpoFunction], CpoFunction]: ...
def cpo_loss(function: CpoFunction | None = None, *, per_token: bool = False) -> Any:
    """File a function of (chosen, rejected) under its name, which becomes a `loss_type`; its keyword-only arguments are config
    fields."""
    if function is None:
        return partial(cpo_loss, per_token=per_token)
    CPO_LOSSES[function.__name__] = CpoLoss(function, per_token)
    return function


@cpo_loss
def sigmoid(chosen: Tensor, rejected: Tensor, *, beta: float, label_smoothing: float) -> Tensor:
    """−(1 − ε) log σ(βΔ) − ε log σ(−βΔ). Xu et al. 2024 (CPO, 2401.08417), L_prefer: DPO with a uniform reference."""
    return logistic(beta * (chosen - rejected), label_smoothing)


@cpo_loss
def hinge(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """max(0, 1 − βΔ). Zhao et al. 2023 (SLiC-HF, 2305.10425), eq. 1, with the margin 1/β."""
    return relu(1 - beta * (chosen - rejected))


@cpo_loss(per_token=True)
def ipo(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """(Δ̄ − 1/2β)². Azar et al. 2023 (2310.12036), eq. 17, with a uniform reference."""
    return (chosen - rejected - 1 / (2 * beta)) ** 2


@cpo_loss(per_token=True)
def simpo(
    chosen: Tensor, rejected: Tensor, *, beta: float, simpo_gamma: float, label_smoothing: float
) -> Tensor:
    """−(1 − ε) log σ(βΔ̄ − γ) − ε log σ(γ − βΔ̄). Meng et al. 2024 (SimPO, 2405.14734), eq. 6."""
    return logistic(beta * (chosen - rejected) - simpo_gamma, label_smoothing)


def alpha_reward(mean_logps: Tensor, alpha: float) -> Tensor:
    """(1 − p̄^(−α)) / α of an average log-probability log p̄, which is log p̄ at α = 0. Gupta et al. 2025 (AlphaPO, 2501.03884).

    Where −α·log p̄ exceeds `STEEPEST` it goes on with the slope that it has there, so that it stays a number and rising.
    """
    if alpha == 0.0:
        return mean_logps
    exponent = -alpha * mean_logps
    curve = torch.expm1(exponent.clamp(max=STEEPEST))
    line = math.exp(STEEPEST) * (1 + exponent - STEEPEST) - 1
    return -torch.where(exponent > STEEPEST, line, curve) / alpha


def log_odds(mean_logps: Tensor) -> Tensor:
    """log(p̄ / (1 − p̄)) of an average log-probability log p̄. Hong et al. 2024 (ORPO, 2403.07691), eq. 4.

    log p̄ counts as −`CERTAIN` at most in 1 − p̄.
    """
    x = mean_logps.clamp(max=-CERTAIN)
    # Maechler 2012: either way of writing log(1 − exp(x)) loses its digits at the other's end.
    near, far = torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x))
    return mean_logps - torch.where(x > -math.log(2), near, far)


def log_odds_ratio(chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
    """(log σ(Λ), Λ), each [P]: Λ the difference of the answers' log-odds. Hong et al. 2024 (ORPO, 2403.07691), eq. 7: the loss is
    −log σ(Λ). chosen, rejected: average log-probabilities."""
    ratio = log_odds(chosen) - log_odds(rejected)
    return logsigmoid(ratio), ratio
