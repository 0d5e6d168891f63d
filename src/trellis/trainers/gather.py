"""The rollouts of all ranks, on every rank: minibatches and whitening then do not depend on how many there are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..rewards import RewardResult
from ..rollout import spread
from ..types import Rollout


def gather_rows(accelerator: Any, rollout: Rollout, verdict: RewardResult) -> tuple[Rollout, RewardResult]:
    """Rollout and verdict with the rows of rank 0, then of rank 1, …; every collective has the same shape on every rank."""
    device, width = rollout.input_ids.device, rollout.input_ids.shape[1]
    widest = int(accelerator.gather(torch.tensor([width], device=device)).max())
    spoke = bool(accelerator.gather(torch.tensor([verdict.per_token is not None], device=device).int()).any())

    def gathered(x: Tensor) -> Tensor:
        if x.dim() == 2 and x.shape[1] == width:
            x = pad(x, (0, widest - width))
        as_bytes = x.to(torch.uint8) if x.dtype == torch.bool else x
        return accelerator.gather(as_bytes.to(device).contiguous()).to(x.dtype)

    placed = (
        torch.zeros_like(rollout.rewards) if verdict.per_token is None else spread(verdict.per_token, rollout)
    )
    total, each, tokens = (
        gathered(verdict.total),
        accelerator.gather(verdict.per_function.to(device)),
        gathered(placed),
    )
    rollout = rollout.mapped(gathered)
    per_token = [t[m] for t, m in zip(tokens, rollout.loss_mask, strict=True)] if spoke else None
    return rollout, RewardResult(total, each, per_token)
