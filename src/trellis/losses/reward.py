"""Losses on pairs of scalar rewards, one value per pair."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid


def bradley_terry(chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """[P]: −log σ(r_c − r_r − m). Bradley & Terry 1952; with a margin, Touvron et al. 2023 (2307.09288), eq. 2."""
    return -logsigmoid(chosen - rejected - margin)


def centering(chosen: Tensor, rejected: Tensor) -> Tensor:
    """[P]: (r_c + r_r)², which keeps scores around 0. Eisenstein et al. 2023 (2312.09244)."""
    return (chosen + rejected) ** 2
