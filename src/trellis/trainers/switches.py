"""The memory switches of a run: put into effect when a trainer is built, and while it trains."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from ..models import Reference, widen_head
from ..types import LossOutput
from .fused_step import StepInBackward
from .offload import Offload


class Switches:
    """Of a trainer whose policy, and reference where it has one, exist already.

    Raises ValueError where the loop takes several micro-batches per step and each parameter is to step within backward.
    """

    def __init__(self, trainer: Any, model: nn.Module, args: Any) -> None:
        self.trainer = trainer
        self.stepping = StepInBackward(trainer) if args.optimizer_in_backward else None
        self._offload: Offload | None = None
        if self.stepping is not None and args.gradient_accumulation_steps > 1:
            raise ValueError(
                f"optimizer_in_backward=True with {args.gradient_accumulation_steps} micro-batches per optimizer step, whose "
                "gradients would have to be kept: expected one; raise per_device_train_batch_size and write "
                "gradient_accumulation_steps=1"
            )
        reference = reference_of(trainer)
        if reference is not None:
            reference.offload = args.offload_reference
        if args.cast_lm_head_to_fp32:
            models = [getattr(model, "policy", model), None if reference is None else reference.model]
            for module in filter(None, models):
                widen_head(module)

    def loss(self, model: nn.Module, batch: Any) -> LossOutput:
        """The trainer's loss; what backward needs goes to the CPU's memory where that was asked for and is another one."""
        args = self.trainer.args
        if not args.activation_offloading or args.device.type == "cpu":
            return self.trainer.own_rows.loss(model, batch)
        if self._offload is None:
            self._offload = Offload(model, args.device.type)
        with self._offload():
            return self.trainer.own_rows.loss(model, batch)

    def running(self) -> AbstractContextManager[Any]:
        """What holds while the trainer trains."""
        return nullcontext() if self.stepping is None else self.stepping.running()

    def norm(self, found: Any) -> Any:
        """The step's gradient norm: `found`, or where gradients are gone already, the one that was added up."""
        return found if self.stepping is None else self.stepping.norm()


def reference_of(trainer: Any) -> Reference | None:
    """The reference that a trainer is built with, if any."""
    collector = getattr(trainer, "collector", None)
    return getattr(trainer, "reference", None) if collector is None else collector.means.reference
