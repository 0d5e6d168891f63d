"""BEMA: an average of the weights without the lag of an average. Block & Zhang 2025 (2508.00180)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from ..models import policy_of, unwrap
from ..models.sharded import sharding_of

logger = logging.getLogger(__name__)
PARTS = ("start", "average", "corrected")


class BEMACallback(TrainerCallback):
    """Keeps θ′ₜ = αₜ(θₜ − θ₀) + EMAₜ of the trained weights, with EMAₜ = (1 − βₜ)EMA + βₜθₜ, αₜ = (ρ + γt)^−η, βₜ = (ρ + γt)^−κ,
    and writes it as a stock model to `output_dir/bema` when training ends.

    t: the optimizer step; `update_freq` steps lie between two updates; κ `ema_power`, η `bias_power` (0: the average alone), ρ
    `lag`, γ `multiplier`; βₜ is at least `min_ema_multiplier`. θ₀ and the average begin at step `update_after`. Everything is
    float32 on `device`, on the first process, and part of every checkpoint. Raises ValueError for weights in pieces (FSDP).
    """

    def __init__(
        self,
        update_freq: int = 400,
        ema_power: float = 0.5,
        bias_power: float = 0.2,
        lag: int = 10,
        update_after: int = 0,
        multiplier: float = 1.0,
        min_ema_multiplier: float = 0.0,
        device: str = "cpu",
    ) -> None:
        if update_freq < 1 or update_after < 0 or lag <= 0:
            raise ValueError(
                f"BEMACallback: expected update_freq >= 1, update_after >= 0 and lag > 0, found "
                f"{update_freq}, {update_after}, {lag}"
            )
        self.update_freq, self.update_after = update_freq, update_after
        self.ema_power, self.bias_power = ema_power, bias_power
        self.lag, self.multiplier, self.min_ema_multiplier = lag, multiplier, min_ema_multiplier
        self.device = device
        self.weights: dict[str, dict[str, Tensor]] = {}
        self._came_back = False

    def beta(self, step: int) -> float:
        """βₜ: the share of the weights of step t in the new average."""
        return max((self.lag + self.multiplier * step) ** -self.ema_power, self.min_ema_multiplier)

    def alpha(self, step: int) -> float:
        """αₜ: how much of the way from the start is added to the average."""
        return (self.lag + self.multiplier * step) ** -self.bias_power if self.bias_power else 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if sharding_of(unwrap(model)):
            raise ValueError(
                "BEMACallback averages whole weights, and these lie in pieces on several processes; train with --accelerate ddp "
                "or zero2, or leave it out"
            )
        if not state.is_world_process_zero or self._came_back:
            return
        if state.global_step > self.update_after:
            logger.warning(
                "the checkpoint holds no BEMA weights: the average begins at step %d", state.global_step
            )
        self._begin(model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        step = state.global_step
        if not state.is_world_process_zero or step < self.update_after:
            return
        if step == self.update_after:
            self._begin(model)
        elif (step - self.update_after) % self.update_freq == 0:
            self._update(model, step)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self._came_back = False
        if state.is_world_process_zero:
            if state.global_step - self.update_after < self.update_freq:
                logger.warning(
                    "the run ended at step %d, before the first update of BEMA's average (update_after=%d, update_freq=%d): "
                    "bema/ holds the weights as they were before it; write a smaller update_freq",
                    state.global_step, self.update_after, self.update_freq,
                )  # fmt: skip
            self.save(policy_of(model), Path(args.output_dir) / "bema")

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write `model` with the corrected weights in place of its own to `folder`."""
        mine = model.state_dict()
        theirs = self.weights["corrected"]
        merged = {n: theirs[n].to(x.device, x.dtype) if n in theirs else x for n, x in mine.items()}
        for name, x in mine.items():  # of a tied pair both names get the new weights
            twin = (
                next((n for n in theirs if mine[n].data_ptr() == x.data_ptr()), None) if x.numel() else None
            )
            merged[name] = merged[twin] if twin else merged[name]
        model.save_pretrained(str(folder), state_dict=merged)  # type: ignore[operator]

    @torch.no_grad()
    def _begin(self, model: Any) -> None:
        self.weights = {part: _trained(model, self.device) for part in PARTS}

    @torch.no_grad()
    def _update(self, model: Any, step: int) -> None:
        alpha, beta = self.alpha(step), self.beta(step)
        start, average, corrected = (self.weights[part] for part in PARTS)
        for name, now in _trained(model, self.device).items():
            average[name].lerp_(now, beta)
            corrected[name] = (now - start[name]).mul_(alpha).add_(average[name])

    def kept_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint needs of it."""
        return {f"{part}.{name}": x for part, tensors in self.weights.items() for name, x in tensors.items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `kept_tensors`."""
        self.weights = {
            part: {
                name.removeprefix(f"{part}."): x.to(self.device)
                for name, x in tensors.items()
                if name.startswith(f"{part}.")
            }
            for part in PARTS
        }
        self._came_back = True


def _trained(model: Any, device: str) -> dict[str, Tensor]:
    """Copies of the trained weights, float32."""
    named = policy_of(model).named_parameters()
    return {n: p.detach().to(device, torch.float32, copy=True) for n, p in named if p.requires_grad}
