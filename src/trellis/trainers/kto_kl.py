"""What KTO's loss needs of a whole optimizer step: the reference's log-probs, and one KL of prompts with other rows' answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..losses.unpaired import mismatch_kl
from ..models import Reference
from ..rollout import evaluation
from ..scoring import score_with_others
from ..types import Scores, TokenBatch, UnpairedBatch
from .base import PostTrainer


class MismatchedKL(PostTrainer):
    """A trainer on labelled answers whose loss may want the KL of the optimizer step.

    Policy and reference read rows in the same passes, so that with equal weights every ratio is exactly 1: own answers, then the
    mismatched ones, which go on from the prompts that were read. Where a step is one micro-batch, the pass that is trained is
    the policy's first; else the KL is found before any of them is trained.
    """

    reference: Reference | None
    wants_kl: bool
    held_out_kl: Tensor | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.memory.before_cut = lambda batch: batch if batch.kl is not None else self.measured([batch])[0]

    def reference_logps(self, tokens: TokenBatch) -> Tensor:
        """[rows]: log π_ref of each row's answer, without gradient."""
        with self._asked() as model:
            return self.score(model, tokens).logps.sum(1)

    def _asked(self) -> Any:
        """The reference, to be scored."""
        if self.reference is None:
            raise ValueError(
                "these rows have no reference log-probs, and the reference was let go after precomputing; pass the data to the "
                "constructor, or write precompute_ref_log_probs=False"
            )
        return self.reference.active(self.model)

    def _both(self, model: nn.Module, batch: UnpairedBatch, **asked: Any) -> tuple[Scores, Tensor]:
        """(scores of the own answers, log-probs [B] of the mismatched ones, without gradient)."""
        with self.accelerator.autocast():
            pair = batch.own(), batch.mismatched()
            return score_with_others(model, *pair, layout=self.args.layout, **asked)

    def own_reference(self, batch: UnpairedBatch) -> Tensor:
        """[B]: log π_ref of the own answers."""
        if batch.ref_logps is None:
            return self.reference_logps(batch.own())
        return batch.ref_logps[: len(batch)]

    def _with_reference(self, batch: UnpairedBatch) -> UnpairedBatch:
        batch = self._prepare_inputs(batch)
        if batch.ref_logps is not None:
            return batch
        if not self.wants_kl:
            return replace(batch, ref_logps=self.reference_logps(batch.own()))
        with self._asked() as model:
            scores, others = self._both(model, batch)
        return replace(batch, ref_logps=torch.cat([scores.logps.sum(1), others]))

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if len(batches) == 1 and self._trains_as_it_measures():
            with self.watchdog.during("scoring"):
                return [self._with_reference(batches[0])], items
        return self.measured(batches, self.sum_over_ranks, len(self.own_rows.of(batches))), items

    def _trains_as_it_measures(self) -> bool:
        """Whether a micro-batch is trained as a whole, by a policy that says in training what it says otherwise."""
        whole = self.memory.rows is None and self.args.micro_batch_tokens is None
        return whole and self.args.disable_dropout

    @torch.no_grad()
    def measured(
        self,
        batches: list[UnpairedBatch],
        reduce: Callable[[Tensor], Tensor] = lambda x: x,
        own: int | None = None,
    ) -> list[UnpairedBatch]:
        """The micro-batches of a step with their reference log-probs and, where the loss wants it, the step's KL; `reduce` sums a
        tensor over ranks, the first `own` batches count."""
        with self.watchdog.during("scoring"):
            known = [self._with_reference(batch) for batch in batches]
        if not self.wants_kl:
            return known
        kl = self.estimate(known, reduce, own)
        return [replace(batch, kl=kl) for batch in known]

    @torch.no_grad()
    def estimate(
        self, batches: Iterable[UnpairedBatch], reduce: Callable[[Tensor], Tensor], own: int | None = None
    ) -> Tensor:
        """z of all mismatched rows of the first `own` of `batches` (None: of all), under the policy as it is now."""
        found = torch.zeros(2, dtype=torch.float64)
        with self.watchdog.during("scoring"), evaluation(self.model):
            for number, batch in enumerate(batches):
                logps, ref = self._mismatched(batch)
                if own is None or number < own:
                    found += _sum_and_count(logps, ref)
        return _kl(reduce(found))

    def _mismatched(self, batch: UnpairedBatch) -> tuple[Tensor, Tensor]:
        """(log π, log π_ref) of the mismatched answers, each [B]."""
        if batch.ref_logps is None:
            rows = batch.mismatched()
            return self.score(self.model, rows).logps.sum(1), self.reference_logps(rows)
        return self._both(self.model, batch)[1], batch.ref_logps[len(batch) :]

    def beside_kl(self, model: nn.Module, batch: UnpairedBatch, **asked: Any) -> tuple[UnpairedBatch, Scores]:
        """The batch with the KL that its loss wants, and the scores of its own answers: the KL is the step's, or that of the
        held-out data that is being evaluated, else that of this batch, of all ranks."""
        if self.wants_kl and batch.kl is None and self.held_out_kl is not None:
            batch = replace(batch, kl=self.held_out_kl)
        # The reference comes first: what the policy's pass leaves stays until backward.
        if not self.wants_kl or batch.kl is not None:
            batch = replace(batch, ref_logps=self.own_reference(batch))
            return batch, self.score(model, batch.own(), **asked)
        batch = self._with_reference(batch)
        scores, others = self._both(model, batch, **asked)
        assert batch.ref_logps is not None
        found = _sum_and_count(others, batch.ref_logps[len(batch) :])
        counts = not self.own_rows.idle or self.own_rows.idle != len(self.current.batches)
        return replace(batch, kl=_kl(self.sum_over_ranks(found * counts))), scores


def _sum_and_count(logps: Tensor, ref: Tensor) -> Tensor:
    """[2] float64: the sum of log-ratios, and how many there are."""
    return torch.tensor([float((logps - ref).double().sum()), len(logps)], dtype=torch.float64)


def _kl(found: Tensor) -> Tensor:
    total, count = found
    return mismatch_kl(total, count.clamp(min=1))
