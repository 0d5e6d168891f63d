"""What takes the place of the log-ratio when the policy is held near its reference by another divergence than reverse KL.

Wang et al. 2023 (2309.16240): the reward of an answer is β f′(u), u = π/π_ref, f the generator of the divergence. Functions of
log u, of any shape, up to the constant that a difference of rewards does not see; 0 at u = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import softplus

CAP = 40.0
"""Exponentials go on as straight lines from here, so that no log-ratio gives an infinite value or a vanished gradient."""


def bounded_exp(x: Tensor) -> Tensor:
    """exp(x) up to CAP, its tangent beyond."""
    low = x.clamp(max=CAP)
    return low.exp() * (1 + x - low)


def reverse_kl(log_ratio: Tensor) -> Tensor:
    """log u: f(u) = u log u."""
    return log_ratio


def forward_kl(log_ratio: Tensor) -> Tensor:
    """1 − 1/u: f(u) = −log u."""
    return 1 - bounded_exp(-log_ratio)


def js_divergence(log_ratio: Tensor) -> Tensor:
    """log(2u / (1 + u)): f(u) = u log u − (u + 1) log((u + 1)/2)."""
    return log_ratio - softplus(log_ratio) + torch.log(log_ratio.new_tensor(2.0))


def alpha_divergence(log_ratio: Tensor, *, alpha: float) -> Tensor:
    """(1 − u^−α) / α: reverse KL for α → 0, forward KL for α = 1."""
    if alpha == 0:
        return log_ratio
    power = -alpha * log_ratio
    return torch.where(power > 1, 1 - bounded_exp(power), -torch.expm1(power.clamp(max=1))) / alpha


DIVERGENCES: dict[str, Callable[..., Tensor]] = {
    f.__name__: f for f in (reverse_kl, forward_kl, js_divergence, alpha_divergence)
}


class FDivergenceType(StrEnum):
    """Names of divergences as TRL writes them; each is the string that `f_divergence_type` takes."""

    REVERSE_KL = "reverse_kl"
    FORWARD_KL = "forward_kl"
    JS_DIVERGENCE = "js_divergence"
    ALPHA_DIVERGENCE = "alpha_divergence"


def divergence(name: str, alpha: float) -> Callable[[Tensor], Tensor]:
    """The transform of log-ratios that `name` stands for. Raises ValueError listing the choices."""
    if name not in DIVERGENCES:
        raise ValueError(f"f_divergence_type={name!r} is not known; expected one of {list(DIVERGENCES)}")
    return partial(alpha_divergence, alpha=alpha) if name == "alpha_divergence" else DIVERGENCES[name]
