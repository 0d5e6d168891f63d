"""When a micro-batch does not fit into memory: the optimizer step is taken anew, with fewer rows at once.

A loss is a sum whose divisor was counted for the whole step, so cutting a micro-batch into parts leaves every gradient as it is.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn

from .step import rows_of

logger = logging.getLogger(__name__)
SAID = ("out of memory", "can't allocate memory", "cudnn_status_not_supported")
Take = Callable[[nn.Module, Any, Any], Tensor]


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on an accelerator or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in SAID)


class Memory:
    """Takes micro-batches in parts of at most `rows` rows (None: whole), a number that is found once and kept."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.rows: int | None = None

    def __call__(self, take: Take, model: nn.Module, batch: Any, items: Any) -> Tensor:
        """The loss of a micro-batch after its backward pass by `take`. Raises MemoryError when a single row does not fit."""
        step = self.trainer.current
        step.add(batch)
        todo = [batch]
        while True:
            try:
                for part in todo:
                    step.losses.append(self._in_parts(take, model, part, items))
                return step.losses[-1]
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                # Its traceback would keep alive what did not fit.
                failure = error.with_traceback(None)
            self._halve(batch, failure)
            step.take_back()
            model.zero_grad()
            gc.collect()
            if torch.accelerator.is_available():
                torch.accelerator.empty_cache()
            todo = step.batches

    def _in_parts(self, take: Take, model: nn.Module, batch: Any, items: Any) -> Tensor:
        if self.rows is None or len(batch) <= self.rows:
            return take(model, batch, items)
        items = self.trainer.count_items([batch]) if items is None else items
        starts = range(0, len(batch), self.rows)
        parts = [rows_of(batch, range(at, min(at + self.rows, len(batch)))) for at in starts]
        return torch.stack([take(model, part, items) for part in parts]).sum(0)

    def _halve(self, batch: Any, failure: BaseException) -> None:
        accelerator, args, count = self.trainer.accelerator, self.trainer.args, len(batch)
        rows = count if self.rows is None else min(count, self.rows)
        advice = (
            "with per_device_train_batch_size halved and gradient_accumulation_steps doubled every number stays as it is; "
            "gradient_checkpointing=True, a shorter max_length and LoRA (peft_config) save memory too"
        )
        if accelerator.num_processes > 1 or accelerator.distributed_type == DistributedType.DEEPSPEED:
            raise MemoryError(f"a micro-batch of {rows} rows does not fit into memory; {advice}") from failure
        if rows == 1:
            raise MemoryError(
                f"a single row does not fit into memory (found {failure}); gradient_checkpointing=True, a shorter max_length, "
                "bf16=True, a smaller model or LoRA (peft_config) need less"
            ) from failure
        self.rows = (rows + 1) // 2
        logger.warning(
            "step %d: %d rows at once do not fit into memory (%s). This step is taken anew with %d at once, as all that follow "
            "are; gradients stay. per_device_train_batch_size=%d and more gradient_accumulation_steps say so from the start",
            self.trainer.state.global_step + 1,
            rows,
            str(failure).splitlines()[0][:160],
            self.rows,
            min(self.rows, args.per_device_train_batch_size),
        )
