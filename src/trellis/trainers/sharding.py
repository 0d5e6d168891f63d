"""What changes in Hugging Face's loop where a model's weights lie in pieces on several processes: coming up, saving, resuming."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from .. import checkpoint as checkpoints
from ..models.sharded import whole
from .own_rows import swapped
from .zero import ZeroTrainer

SCHEDULER = "scheduler.pt"


class ShardedTrainer(ZeroTrainer):
    """Trains with FSDP2 where accelerate was asked for it, on a CPU too.

    A checkpoint holds the whole model as stock transformers reads it, written by one process, and the optimizer in pieces; it can
    be resumed by any number of processes, sharded or not.
    """

    loading: Any = None
    """The part of the model that a checkpoint is just read into."""

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        self.is_fsdp_enabled = enter_fsdp(self.accelerator, self.args)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        checkpoints.save_optimizer(self.model, self.optimizer.optimizer, output_dir)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, SCHEDULER))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not (self.is_fsdp_enabled or checkpoints.in_pieces(checkpoint)):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        checkpoints.load_optimizer(self.model, optimizer, checkpoint)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint, SCHEDULER), weights_only=True))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        model = self.model if model is None else model
        with (
            whole(model, writeback=True),
            swapped(self, "is_fsdp_enabled", False),
            swapped(self, "loading", model),
        ):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        model = self.model if self.loading is None else self.loading
        checkpoints.check_loaded(model, load_result.missing_keys, load_result.unexpected_keys)

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled:
            self._load_from_checkpoint(str(self.state.best_model_checkpoint))
        else:
            super()._load_best_model()


def enter_fsdp(accelerator: Any, args: Any) -> bool:
    """Whether this run is sharded by FSDP2. On a CPU accelerate would use DDP without a word; here it shards there, too.

    Raises ValueError for FSDP of the first version.
    """
    state = accelerator.state
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if asked and state.distributed_type == DistributedType.MULTI_CPU:
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**(getattr(args, "fsdp_plugin_args", None) or {}))
        if state.mixed_precision != "no":
            state.fsdp_plugin.set_mixed_precision(state.mixed_precision)
        state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    plugin = getattr(state, "fsdp_plugin", None)
    if plugin is None:
        return False
    if plugin.fsdp_version != 2:
        raise ValueError(
            "FSDP was asked for in its first version, which torch has given up; write fsdp_version: 2 in the accelerate config "
            "(or set FSDP_VERSION=2)"
        )
    if getattr(args, "sync_ref_model", False):
        raise ValueError(
            "sync_ref_model=True moves a whole reference, and FSDP has the policy in pieces; leave it out, or train with "
            "--accelerate ddp or zero2"
        )
    plugin.set_state_dict_type("FULL_STATE_DICT")  # what is saved is a stock model
    policy = plugin.mixed_precision_policy
    if policy is not None:  # gradients are added up in float32, and what scoring returns is not rounded
        kind = type(policy)
        plugin.mixed_precision_policy = kind(param_dtype=policy.param_dtype, reduce_dtype=torch.float32)
    return True
