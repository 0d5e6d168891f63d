"""Losses of supervised fine-tuning: per token, never reduced."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

SupervisedLoss = Callable[[Tensor], Tensor]

SUPERVISED_LOSSES: dict[str, SupervisedLoss] = {}
"""{loss_type: function of the log-probs [B, T]}."""


def supervised_loss(function: SupervisedLoss) -> SupervisedLoss:
    """File `function` under its name, which is the config's `loss_type`."""
    SUPERVISED_LOSSES[function.__name__] = function
    return function


@supervised_loss
def nll(logps: Tensor) -> Tensor:
    """−log p, of any shape."""
    return -logps


@supervised_loss
def dft(logps: Tensor) -> Tensor:
    """−sg(p) · log p: dynamic fine-tuning, Wu et al. 2025 (2508.05629), eq. 9; sg stops the gradient."""
    return -logps.detach().exp() * logps


def get_supervised_loss(name: str) -> SupervisedLoss:
    """The loss filed under `name`. Raises ValueError listing the choices."""
    if name not in SUPERVISED_LOSSES:
        raise ValueError(f"loss_type={name!r} is not known; expected one of {sorted(SUPERVISED_LOSSES)}")
    return SUPERVISED_LOSSES[name]
