"""What changes in Hugging Face's loop under DeepSpeed, which steps inside backward and keeps optimizer and weights to itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer
from transformers.integrations.deepspeed import deepspeed_load_checkpoint

from ..checkpoint import read_manifest
from ..models.sharded import whole
from .own_rows import swapped

CONVERTED = "latest_universal"


class ZeroTrainer(Trainer):
    """Trains under DeepSpeed ZeRO where accelerate or `deepspeed=` asks for it.

    A checkpoint holds the whole model as stock transformers reads it, and the engine's own state, each process's piece.
    """

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.is_deepspeed_enabled:
            settle(self.accelerator.state.deepspeed_plugin.deepspeed_config, self.args)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; under DeepSpeed a checkpoint of another number of processes is read where it was converted for that."""
        if self.is_deepspeed_enabled and resume_from_checkpoint:
            config = self.accelerator.state.deepspeed_plugin.deepspeed_config
            universal = for_any_world(Path(str(resume_from_checkpoint)), self.args.world_size)
            config["checkpoint"] = {**config.get("checkpoint", {}), "load_universal": universal}
        return super().train(resume_from_checkpoint, **kwargs)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.is_deepspeed_enabled:  # and nothing has been read from a checkpoint
            self._groups = [own_settings(group) for group in self.optimizer.param_groups]
        return super().create_scheduler(num_training_steps, optimizer)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.is_deepspeed_enabled and checkpoint and self.deepspeed.load_universal_checkpoint():
            mend(self.deepspeed.optimizer.optimizer, self._groups, self.lr_scheduler.get_last_lr())

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


def for_any_world(folder: Path, world: int) -> bool:
    """Whether a checkpoint is to be read in the form for any number of processes, as another number wrote it than `world`.

    Raises ValueError, with the command to type, where it has not been converted.
    """
    wrote = read_manifest(folder)["world_size"]
    if wrote != world and not (folder / CONVERTED).is_file():
        step = next(folder.glob("global_step*"), folder / "global_step…")
        raise ValueError(
            f"{folder} was saved by {wrote} processes under DeepSpeed and is to be resumed by {world}. Convert it first: "
            f"python -m deepspeed.checkpoint.ds_to_universal --inject_missing_state --input_folder {step} "
            f"--output_folder {step}_universal"
        )
    return wrote != world


def own_settings(group: dict[str, Any]) -> dict[str, Any]:
    """A parameter group of an optimizer without its parameters and their rate."""
    return {name: value for name, value in group.items() if name not in ("params", "lr")}


def mend(optimizer: Any, groups: list[dict[str, Any]], rates: list[float]) -> None:
    """What DeepSpeed mixes up when it reads ZeRO-3 in the form for any number of processes: every group gets the settings of
    the first, and all parameters share one counter of steps, which each of them then moves on."""
    for group, own, rate in zip(optimizer.param_groups, groups, rates, strict=True):
        group.update(own, lr=rate)
    for state in optimizer.state.values():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].clone()


def refused(trainer: Any) -> bool:
    """Whether DeepSpeed has left the step out that was just due, because its gradient is not finite."""
    return trainer.is_deepspeed_enabled and bool(trainer.optimizer.step_was_skipped)


def scales(trainer: Any) -> bool:
    """Whether a gradient may overflow because the loss is scaled (fp16)."""
    if trainer.is_deepspeed_enabled:
        return bool(trainer.deepspeed.fp16_enabled())
    return trainer.accelerator.scaler is not None
