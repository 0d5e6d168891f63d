"""What is wrong with a step whose loss or gradient is not finite: which rows, which quantities, which weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor

from ..rollout import evaluation
from ..types import Record
from .saving import non_finite, trained
from .step import rows_of

WHOLE_MODELS = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
SHOWN = 6


@dataclass(frozen=True)
class BadRow:
    """A row (or pair) whose own loss, or whose loss's gradient, is not finite."""

    micro_batch: int
    row: int
    loss: float
    gradient: str  # "finite", or a parameter whose gradient is not

    def __str__(self) -> str:
        what = f"loss {self.loss}" if not math.isfinite(self.loss) else f"gradient of {self.gradient}"
        return f"row {self.row} of micro-batch {self.micro_batch} ({what})"


@dataclass(frozen=True)
class Diagnosis:
    """losses: of the step's micro-batches; weights: names of those that were not finite before the step; quantities: how many
    values of the batches were not; rows: None where they were not looked at one by one (sharded models)."""

    losses: list[float]
    norm: float | None
    weights: list[str]
    quantities: dict[str, int]
    rows: list[BadRow] | None = field(default_factory=list)

    def text(self, step: int) -> str:
        """One paragraph: what was found, where, and what to try."""
        bad = [i for i, loss in enumerate(self.losses) if not math.isfinite(loss)]
        norm = "" if self.norm is None else f", gradient norm {self.norm}"
        losses = f"loss {self.losses[bad[0]]} in micro-batch {bad[0]}" if bad else "every loss is finite"
        parts = [
            f"step {step} was not finite ({losses} of {len(self.losses)}{norm}); the weights were not moved."
        ]
        if self.weights:
            parts.append(
                f"{len(self.weights)} weights were not finite before it, {self.weights[0]} among them."
            )
        elif self.quantities:
            counted = ", ".join(f"{n} in {name}" for name, n in self.quantities.items())
            parts.append(f"Its batch already held values that are not finite: {counted}.")
        if self.rows:
            more = f" and {len(self.rows) - SHOWN} more" if len(self.rows) > SHOWN else ""
            parts.append("Found in " + ", ".join(map(str, self.rows[:SHOWN])) + f"{more}.")
        elif self.rows is not None:
            parts.append(
                "No row shows it by itself: it comes from their sum, or from what is drawn anew (dropout)."
            )
        return " ".join([*parts, self._advice()])

    def _advice(self) -> str:
        if self.weights:
            return "The model came so, or an earlier step did it: go on from a checkpoint with a lower learning_rate."
        if self.quantities:
            return "Look at what made the batch: rewards, or the reference's log-probabilities."
        return 'Try a lower learning_rate or max_grad_norm, bf16 in place of fp16, or on_bad_step="skip" for a rare bad row.'

    def as_json(self, step: int, rank: int) -> dict[str, Any]:
        """The same as JSON values (a number that is not finite as its name)."""
        return {
            "step": step,
            "rank": rank,
            "losses": list(map(str, self.losses)),
            "gradient_norm": None if self.norm is None else str(self.norm),
            "non_finite_weights": self.weights,
            "non_finite_in_batch": self.quantities,
            "rows": None
            if self.rows is None
            else [{**vars(row), "loss": str(row.loss)} for row in self.rows],
        }


def diagnose(trainer: Any, norm: Any) -> Diagnosis:
    """Look at the step that `trainer` has just computed; what its loss counts is counted again, weights and gradients stay."""
    losses, batches = [float(x) for x in trainer.current.losses], list(trainer.current.batches)
    quantities: dict[str, int] = {}
    for batch in batches:
        for name, x in tensors_of(batch):
            count = int((~x.isfinite()).sum()) if x.is_floating_point() else 0
            if count:
                quantities[name] = quantities.get(name, 0) + count
    weights = non_finite(trained(trainer.model))
    rows = None
    if trainer.accelerator.distributed_type in WHOLE_MODELS and not weights:
        rows = [row for i, batch in enumerate(batches) for row in _bad_rows(trainer, i, batch)]
    return Diagnosis(losses, None if norm is None else float(norm), weights, quantities, rows)


def _bad_rows(trainer: Any, number: int, batch: Any) -> Iterator[BadRow]:
    model, batch = trainer.accelerator.unwrap_model(trainer.model), trainer._prepare_inputs(batch)
    names, weights = zip(*trained(model), strict=True)
    with evaluation(model), torch.enable_grad():
        for i in range(len(batch)):
            total = trainer.loss(model, rows_of(batch, range(i, i + 1))).total
            gradient = _non_finite_gradient(total, names, weights)
            loss = float(total.detach())
            if gradient != "finite" or not math.isfinite(loss):
                yield BadRow(number, i, loss, gradient)


def _non_finite_gradient(total: Tensor, names: tuple[str, ...], weights: tuple[Tensor, ...]) -> str:
    if not total.requires_grad:
        return "finite"
    found = torch.autograd.grad(total, weights, allow_unused=True)
    named = ((name, x) for name, x in zip(names, found, strict=True) if x is not None)
    return next(iter(non_finite(named)), "finite")


def tensors_of(batch: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a record and of the records in it, by its dotted name."""
    for f in fields(batch) if isinstance(batch, Record) else ():  # type: ignore[arg-type]
        value = getattr(batch, f.name)
        if isinstance(value, Tensor):
            yield prefix + f.name, value
        else:
            yield from tensors_of(value, f"{prefix}{f.name}.")
