"""Trainers with one fault planted: a row whose loss or gradient is not finite, a model that needs memory by the row."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from tests.builders import tiny_model, tiny_tokenizer
from tests.resume.cases import COMMON, sentences
from trellis import SFTConfig, SFTTrainer
from trellis.types import LossOutput, TokenBatch

MARK = "@@@"
STEPS = 6


class Spoiled(SFTTrainer):
    """A row with `MARK` in it has a loss that is NaN, or a finite loss whose gradient is NaN."""

    how = "loss"

    def loss(self, model: nn.Module, batch: TokenBatch) -> LossOutput:
        out = super().loss(model, batch)
        mark = self.processing_class(MARK)["input_ids"][0]
        if not bool((batch.input_ids == mark).any()):
            return out
        if self.how == "loss":
            return LossOutput(
                out.total * torch.nan, {name: (s * torch.nan, n) for name, (s, n) in out.metrics.items()}
            )
        weight = next(model.parameters()).sum()
        return LossOutput(out.total + (weight * 0).sqrt(), out.metrics)  # 0, with a derivative of 0/0


def spoiled(output_dir: Any, *, how: str = "loss", marked: tuple[int, ...] = (5,), **changes: Any) -> Spoiled:
    """SFT over one epoch of six steps, each of two micro-batches of two rows; the rows `marked` are spoiled."""
    tokenizer = tiny_tokenizer()
    texts = [f"{MARK} {text}" if i in marked else text for i, text in enumerate(sentences(24, seed=1))]
    fields = {
        **COMMON,
        "max_steps": STEPS,
        "logging_steps": 1,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_length": 64,
        **changes,
    }
    trainer = Spoiled(
        model=tiny_model("llama", tokenizer),
        args=SFTConfig(output_dir=str(output_dir), **fields),
        train_dataset=[{"text": text} for text in texts],
        processing_class=tokenizer,
    )
    trainer.how = how
    return trainer


class Kill(TrainerCallback):
    """Sends this process a signal after some forward passes of a step."""

    def __init__(self, number: signal.Signals, step: int, rank: int = 0) -> None:
        self.number, self.step, self.rank = number, step, rank

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step - 1 and args.process_index == self.rank:
            os.kill(os.getpid(), self.number)


def greedy_for_memory(model: nn.Module, rows: int, *, backward: bool = False) -> None:
    """From now on an allocation of a petabyte is tried wherever `model` is trained on more than `rows` rows at once."""

    def allocate(count: int) -> None:
        if count > rows:
            torch.empty(1 << 50)

    def embedded(module: nn.Module, args: Any, out: torch.Tensor) -> None:
        if not module.training:
            return
        if backward:
            out.register_hook(lambda gradient: allocate(len(gradient)))
        else:
            allocate(len(out))

    model.get_input_embeddings().register_forward_hook(embedded)
