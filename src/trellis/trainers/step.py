"""The optimizer step that is being taken: its micro-batches and losses so far, and how to take back that it began."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from ..types import PairBatch


class Step:
    """What a trainer has seen since the last optimizer step. `batches` and `losses` are its micro-batches and what they gave."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.batches: list[Any] = []
        self.losses: list[Tensor] = []
        self._before: dict[str, Any] = {}

    def add(self, batch: Any) -> None:
        """A micro-batch comes; with the first of a step, what the trainer has counted until now is noted."""
        trainer = self.trainer
        if not self.batches:
            self._before = {name: copy.deepcopy(getattr(trainer, name)) for name in trainer.counted}
            self._noted, self._loss = len(trainer.meter.pending), trainer._tr_loss.clone()
        self.batches.append(batch)

    def take_back(self) -> None:
        """What was counted since the step began is forgotten: metrics, losses, and what the trainer names `counted`."""
        trainer = self.trainer
        for name, value in self._before.items():
            setattr(trainer, name, copy.deepcopy(value))
        del trainer.meter.pending[self._noted :]
        self.losses.clear()

    def take_back_loss(self) -> None:
        """The step is not part of the logged mean of losses."""
        self.trainer._tr_loss.copy_(self._loss)
        self.trainer._globalstep_last_logged += 1

    def clear(self) -> None:
        """The step is over."""
        self.batches, self.losses, self._before = [], [], {}


def rows_of(batch: Any, rows: range) -> Any:
    """The rows (or pairs) `rows` of a batch, in the batch's own type."""
    index = torch.arange(rows.start, rows.stop)
    if isinstance(batch, PairBatch):
        both = torch.cat([index, index + len(batch)])
        known = None if batch.ref_logps is None else batch.ref_logps[both]
        return PairBatch(batch.tokens.rows(both), batch.margin[index], known)
    return batch.rows(index)
