"""What changes in Hugging Face's loop under DeepSpeed, which steps inside backward and keeps optimizer and weights to itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer
from transformers.integrations.deepspeed import deepspeed_load_checkpoint

from .. import checkpoint
from ..models.sharded import whole
from .own_rows import swapped


class ZeroTrainer(Trainer):
    """Trains under DeepSpeed ZeRO where accelerate or `deepspeed=` asks for it.

    A checkpoint holds the whole model as stock transformers reads it, and the engine's own state, each process's piece.
    """

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.is_deepspeed_enabled:
            settle(self.accelerator.state.deepspeed_plugin.deepspeed_config, self.args)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train, from a checkpoint of as many processes where one is named."""
        if self.is_deepspeed_enabled and resume_from_checkpoint:
            check_world(Path(str(resume_from_checkpoint)), self.args.world_size)
        return super().train(resume_from_checkpoint, **kwargs)

    def seen(self, loss: Tensor) -> Tensor:
        """The loss as backward sees it. DeepSpeed steps within and looks at gradients alone: where the loss is not finite, they
        shall not be either."""
        if not self.is_deepspeed_enabled:
            return loss
        return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan).to(loss)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the weights, whole and by one process, as without DeepSpeed; every process calls this."""
        if not self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)
            return
        with whole(self.model), swapped(self, "is_deepspeed_enabled", False):
            super().save_model(output_dir, _internal_call)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_deepspeed_enabled:  # with the weights in full precision and the optimizer
            deepspeed_load_checkpoint(self.model_wrapped, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)


def settle(config: dict[str, Any], args: Any) -> None:
    """Complete DeepSpeed's config by what it would leave out without a word: clipping, and the loop's own accumulation."""
    if config.get("gradient_clipping", "auto") == "auto":
        config["gradient_clipping"] = args.max_grad_norm
    config["gradient_accumulation_steps"] = args.gradient_accumulation_steps
    micro = config.get("train_micro_batch_size_per_gpu", "auto")
    micro = args.per_device_train_batch_size if micro == "auto" else micro
    config["train_batch_size"] = micro * args.gradient_accumulation_steps * args.world_size


def check_world(folder: Path, world: int) -> None:
    """Raises ValueError where the engine's state in a checkpoint was written by another number of processes."""
    wrote = checkpoint.read_manifest(folder)["world_size"]
    if wrote != world:
        raise ValueError(
            f"{folder} was saved by {wrote} processes under DeepSpeed, which cannot hand its optimizer to {world}. Start {wrote} "
            f"processes, or begin anew from the weights with model={str(folder)!r}"
        )


def refused(trainer: Any) -> bool:
    """Whether DeepSpeed has left the step out that was just due, because its gradient is not finite."""
    return trainer.is_deepspeed_enabled and bool(trainer.optimizer.step_was_skipped)


def scales(trainer: Any) -> bool:
    """Whether a gradient may overflow because the loss is scaled (fp16)."""
    if trainer.is_deepspeed_enabled:
        return bool(trainer.deepspeed.fp16_enabled())
    return trainer.accelerator.scaler is not None
