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

from .alive import explained
from .step import rows_of

logger = logging.getLogger(__name__)
SAID = ("out of memory", "can't allocate memory", "cudnn_status_not_supported")
Take = Callable[[nn.Module, Any, Any], Tensor]


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on an accelerator or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in SAID)


def spans(batch: Any, rows: int | None, tokens: int | None) -> list[range]:
    """The rows (or pairs) of a batch in consecutive parts of at most `rows` and of at most `tokens` real tokens each, a group's
    prompt counted once per part; a row that is longer stands alone."""
    known = getattr(batch, "tokens", batch)
    lengths, prompts, groups = known.lengths.tolist(), known.prompt_len.tolist(), known.group.tolist()
    found, start, total = [], 0, 0
    met: set[int] = set()
    for i in range(len(batch)):
        own = {groups[r]: prompts[r] for r in range(i, len(lengths), len(batch))}
        answers = sum(lengths[r] - prompts[r] for r in range(i, len(lengths), len(batch)))
        more = answers + sum(n for group, n in own.items() if group not in met)
        full = i - start == rows or (tokens is not None and total + more > tokens)
        if full and i > start:
            found.append(range(start, i))
            start, met, total, more = i, set(), 0, answers + sum(own.values())
        met.update(own)
        total += more
    return [*found, range(start, len(batch))]


class Memory:
    """Takes micro-batches in parts of at most `rows` rows (None: whole), a number that is found once and kept, and of at most
    `micro_batch_tokens` tokens. before_cut: a micro-batch with what the loss of a part of it needs to know of the whole."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.rows: int | None = None
        self.before_cut: Callable[[Any], Any] = lambda batch: batch

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
                    told = explained(error)
                    if told is error:
                        raise
                    raise told from error
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
        tokens = self.trainer.args.micro_batch_tokens
        if tokens is None and (self.rows is None or len(batch) <= self.rows):
            return take(model, batch, items)
        items = self.trainer.count_items([batch]) if items is None else items
        batch = self.before_cut(batch)
        parts = [rows_of(batch, part) for part in spans(batch, self.rows, tokens)]
        return torch.stack([take(model, part, items) for part in parts]).sum(0)

    def _halve(self, batch: Any, failure: BaseException) -> None:
        accelerator, args, count = self.trainer.accelerator, self.trainer.args, len(batch)
        rows = count if self.rows is None else min(count, self.rows)
        advice = (
            "with per_device_train_batch_size halved and gradient_accumulation_steps doubled every number stays as it is; "
            "gradient_checkpointing=True, a shorter max_length and LoRA (peft_config) save memory too"
        )
        stepped = args.optimizer_in_backward or accelerator.distributed_type == DistributedType.DEEPSPEED
        if accelerator.num_processes > 1 or stepped:
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
