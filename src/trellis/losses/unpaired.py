"""Losses on single answers that people liked or did not: pure, one value per row, never reduced.

r is an answer's log-ratio log π/π_ref, summed over its tokens; σ the logistic function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

UnpairedFunction = Callable[..., Tensor]


@dataclass(frozen=True)
class UnpairedLoss:
    """A loss and whether it wants `kl`, the optimizer step's estimate of KL(π ‖ π_ref)."""

    function: UnpairedFunction
    wants_kl: bool


UNPAIRED_LOSSES: dict[str, UnpairedLoss] = {}
"""{loss_type: loss}."""


def unpaired_loss(function: UnpairedFunction) -> UnpairedFunction:
    """File a function of (ratio [B], label [B]), or (ratio, label, kl), under its name, which becomes a `loss_type`; keyword-only
    arguments are config fields."""
    UNPAIRED_LOSSES[function.__name__] = UnpairedLoss(
        function, "kl" in inspect.signature(function).parameters
    )
    return function


def weights(ratio: Tensor, label: Tensor, desirable_weight: float, undesirable_weight: float) -> Tensor:
    """[B], like `ratio`: what each row counts for."""
    return torch.where(label, ratio.new_tensor(desirable_weight), ratio.new_tensor(undesirable_weight))


@unpaired_loss
def kto(
    ratio: Tensor,
    label: Tensor,
    kl: Tensor,
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> Tensor:
    """w_D (1 − σ(β(r − z))) where the answer was liked, w_U (1 − σ(β(z − r))) where not; z = `kl`. Ethayarajh et al. 2024
    (2402.01306), §4.1."""
    better = torch.where(label, ratio - kl, kl - ratio)
    return weights(ratio, label, desirable_weight, undesirable_weight) * torch.sigmoid(-beta * better)


@unpaired_loss
def apo_zero_unpaired(
    ratio: Tensor, label: Tensor, *, beta: float, desirable_weight: float, undesirable_weight: float
) -> Tensor:
    """w_D (1 − σ(βr)) where the answer was liked, w_U σ(βr) where not. D'Oosterlinck et al. 2024 (2408.06266), eq. 3, for single
    answers."""
    better = torch.where(label, ratio, -ratio)
    return weights(ratio, label, desirable_weight, undesirable_weight) * torch.sigmoid(-beta * better)


def mismatch_kl(total: Tensor, count: Tensor | float) -> Tensor:
    """z, a scalar: the mean log-ratio of mismatched prompts and answers, from its sum and count; at least 0, without gradient.
    Ethayarajh et al. 2024 (2402.01306), §4.1."""
    return (total.detach() / count).clamp(min=0)


def recommended_weights(
    desirable: int, undesirable: int, desirable_weight: float, undesirable_weight: float
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """None where w_D n_D / (w_U n_U) lies in [1, 4/3], otherwise the ranges of w_D (with w_U as it is) and of w_U (with w_D) that
    put it there. Ethayarajh et al. 2024 (2402.01306), eq. 8."""
    liked, disliked = desirable * desirable_weight, undesirable * undesirable_weight
    if disliked <= liked * (1 + 1e-9) and liked <= disliked * 4 / 3 * (1 + 1e-9):
        return None
    of_desirable = disliked / desirable
    of_undesirable = liked / undesirable
    return (of_desirable, of_desirable * 4 / 3), (of_undesirable * 3 / 4, of_undesirable)
