"""Several ranks: the loader fills the last batches of a pass up with rows seen before, which must not count twice."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..types import LossOutput, Record
from .step import rows_of


@dataclass(frozen=True)
class Held:
    """Prepared rows of a held-out batch, collated once it is known which of them are this rank's own."""

    rows: list[dict[str, Any]]

    def own(self, state: Any, rank: int) -> Sequence[dict[str, Any]]:
        """The rows that no other rank and no earlier batch has; `state` is accelerate's GradientState."""
        return self.rows[: own_count(state, rank, len(self.rows))]


def own_count(state: Any, rank: int, size: int) -> int:
    """How many of the `size` rows of the batch that was read last are this rank's own.

    Of the ranks' last batches, laid end to end, the first `remainder` rows are the data's last (0: all are; −1: the data is a
    stream, of whose length nothing is known), unless what does not fill a batch is left out.
    """
    whole = getattr(getattr(state.active_dataloader, "batch_sampler", None), "drop_last", False)
    if whole or not state.end_of_dataloader or state.remainder <= 0:
        return size
    return min(size, max(0, state.remainder - rank * size))


def left_over(trainer: Any) -> int:
    """Rows of the training data beyond whole rounds of all ranks' batches; −1 where nobody knows, or they are left out."""
    args, data = trainer.args, trainer.train_dataset
    if args.dataloader_drop_last or not hasattr(data, "__len__"):
        return -1
    return len(data) % (args.train_batch_size * args.world_size)


class OwnRows:
    """Training on this rank's own rows. A rank that has none left for a micro-batch takes a row along that counts nowhere, as all
    ranks have to meet in a forward and backward pass. `idle`: which micro-batch of the step that is (from 1), or 0."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.idle = trainer, 0

    def cut(self, batches: list[Any]) -> list[Any]:
        """The micro-batches of a step without the rows that were filled up."""
        self.idle, trainer = 0, self.trainer
        if trainer.args.world_size == 1 or not batches or not isinstance(batches[-1], Record):
            return batches
        last: Any = batches[-1]
        size = len(last)
        state = trainer.accelerator.gradient_state
        if state.end_of_dataloader and state.remainder < 0:  # forgotten where a resumed run skipped batches
            state.active_dataloader.remainder = left_over(trainer)
        own = own_count(state, trainer.args.process_index, size)
        if own < size:
            batches = [*batches[:-1], rows_of(last, range(max(own, 1)))]
        self.idle = 0 if own else len(batches)
        return batches

    def of(self, batches: list[Any]) -> list[Any]:
        """Those of a step's micro-batches that count."""
        return batches[: self.idle - 1] if self.idle else batches

    def loss(self, model: nn.Module, batch: Any) -> LossOutput:
        """The trainer's loss of the micro-batch that the step is at; of a row taken along, 0 and no metrics."""
        trainer = self.trainer
        if not (self.idle and model.training and len(trainer.current.batches) == self.idle):
            return trainer.loss(model, batch)
        before = {name: copy.deepcopy(getattr(trainer, name)) for name in trainer.counted}
        total = trainer.loss(model, batch).total
        for name, value in before.items():
            setattr(trainer, name, value)
        return LossOutput(total * 0)


@contextmanager
def swapped(thing: Any, name: str, value: Any) -> Iterator[None]:
    """`thing.name` is `value` inside."""
    before = getattr(thing, name)
    setattr(thing, name, value)
    try:
        yield
    finally:
        setattr(thing, name, before)
