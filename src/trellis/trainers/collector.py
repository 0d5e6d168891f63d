"""From prompts to measured rollouts: sampling, judging, and scoring what was sampled."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from ..data import prompt_indices
from ..metrics import Metric, deviation
from ..models import Reference
from ..rewards import RewardResult, RewardSet
from ..rollout import Completion, SamplingParams, sample, spread, to_batch
from ..scoring import in_chunks
from ..types import Metrics, Rollout, TokenBatch
from .gather import gather_rows
from .seeds import derived_seed

logger = logging.getLogger(__name__)
Row = dict[str, Any]
SAME = 1e-3
"""How far a token's float32 log-probability may differ between sampling and scoring without a warning."""
SAMPLING = Metric(
    "sampling/logp_difference", "mean |log π scored − log π while sampling|, sampled tokens", hold=True
)


@dataclass(frozen=True)
class Means:
    """What a trainer samples and judges with. `chunk_rows`: rows sampled or scored at once, without gradients."""

    sampling: SamplingParams
    rewards: RewardSet
    reference: Reference | None
    chunk_rows: int


class Collector:
    """Collects rollouts for an on-policy trainer. Everything random is a function of the seed, the rollout and the row."""

    def __init__(self, trainer: Any, means: Means) -> None:
        self.trainer, self.means = trainer, means
        self._warned = False

    @property
    def metrics(self) -> list[Metric]:
        """What collecting adds to the meter."""
        found = [SAMPLING]
        for name in self.means.rewards.names:
            mean, square, std = (f"rewards/{name}/{what}" for what in ("mean", "square", "std"))
            found += [
                Metric(mean, f"mean of {name} over the completions it applies to", hold=True),
                Metric(square, f"mean of {name}²", hold=True, hidden=True),
                Metric(std, f"standard deviation of {name} over completions", derive=deviation(mean, square)),
            ]
        return found

    def collect(self, number: int) -> tuple[Rollout, RewardResult]:
        """Rollout `number`, measured, with its verdict; all ranks' rows on every rank."""
        trainer, schedule = self.trainer, self.trainer.schedule
        args, data = trainer.args, trainer.train_dataset
        size = schedule.prompts // schedule.world
        first = args.process_index * size
        order_seed = args.seed if args.data_seed is None else args.data_seed
        indices = prompt_indices(number * schedule.prompts, schedule.prompts, len(data), order_seed)
        indices = indices[first : first + size]
        rows = [data[i] for i in indices]
        places = range(first * schedule.samples, (first + size) * schedule.samples)
        completions = self.sample(rows, [derived_seed(args.seed, number, place) for place in places])
        rows = [row for row in rows for _ in range(schedule.samples)]
        verdict = self.judge(rows, completions)
        rollout = self.measure(rows, completions, verdict)
        self._compare(rollout, completions)
        rollout.group = first + torch.arange(size).repeat_interleave(schedule.samples).to(rollout.group)
        rollout.row = torch.tensor(indices).repeat_interleave(schedule.samples).to(rollout.row)
        trainer.held_out.offer(number, rows, completions, verdict.total)
        if schedule.world > 1:
            rollout, verdict = gather_rows(trainer.accelerator, rollout, verdict)
        trainer.meter.add(self.reward_sums(verdict))
        return rollout, verdict

    def reward_sums(self, verdict: RewardResult) -> Metrics:
        """Each reward's (sum, count) and (sum of squares, count) over the rows it applies to."""
        found: Metrics = {}
        for name, column in zip(self.means.rewards.names, verdict.per_function.T, strict=True):
            applies = column[~column.isnan()].double()
            count = float(len(applies))
            found[f"rewards/{name}/mean"] = (applies.sum(), count)
            found[f"rewards/{name}/square"] = ((applies**2).sum(), count)
        return found

    def sample(self, rows: Sequence[Row], seeds: Sequence[int]) -> list[Completion]:
        """Completions of prepared prompts, one per seed, by the policy itself in the precision it is trained in."""
        means, trainer = self.means, self.trainer
        with trainer.accelerator.autocast():
            return sample(
                trainer.policy,
                [row["prompt_ids"] for row in rows],
                means.sampling,
                n=len(seeds) // max(1, len(rows)),
                seeds=seeds,
                rows=means.chunk_rows,
            )

    def texts(self, completions: Sequence[Completion]) -> list[str]:
        """What the completions say, without special tokens."""
        decode = self.trainer.processing_class.decode
        return [decode(c.ids, skip_special_tokens=True) for c in completions]

    def judge(self, rows: Sequence[Row], completions: Sequence[Completion]) -> RewardResult:
        """The rewards' verdict on completions, as texts or chats like their prompts."""
        said = [
            text if isinstance(row["prompt"], str) else [{"role": "assistant", "content": text}]
            for text, row in zip(self.texts(completions), rows, strict=True)
        ]
        return self.means.rewards(
            prompts=[row["prompt"] for row in rows],
            completions=said,
            completion_ids=[c.ids for c in completions],
            columns=extra_columns(rows),
            state=self.trainer.state,
            finished=[c.finish_reason == "stop" for c in completions],
        )

    @torch.no_grad()
    def measure(
        self, rows: Sequence[Row], completions: Sequence[Completion], verdict: RewardResult
    ) -> Rollout:
        """A rollout with everything known before advantages: log-probabilities old and of the reference, values, scores.

        Old ones are scored, not taken from sampling: with unchanged weights every ratio is then 1 and every KL 0, to the bit, in
        any precision.
        """
        trainer = self.trainer
        trainer.model.eval()
        batch = to_batch([row["prompt_ids"] for row in rows], completions).to(trainer.args.device)
        old, values = trainer.look(batch)
        blank = torch.zeros_like(old)
        return Rollout(
            **{f.name: getattr(batch, f.name) for f in fields(TokenBatch)},
            old_logps=old,
            ref_logps=self.ref_logps(batch),
            values=values,
            rewards=blank,
            advantages=blank.clone(),
            returns=blank.clone(),
            scores=verdict.total.to(old.device),
            finished=torch.tensor([c.finish_reason == "stop" for c in completions], device=old.device),
            row=torch.zeros(len(batch), dtype=torch.long, device=old.device),
        )

    @torch.no_grad()
    def logps(self, model: nn.Module, batch: TokenBatch) -> Tensor:
        """[B, T] log-probabilities at the sampling temperature, a chunk of rows at a time."""
        temperature, score = self.means.sampling.temperature, self.trainer.score
        return in_chunks(
            lambda part: score(model, part, temperature=temperature).logps, batch, self.means.chunk_rows
        )

    def ref_logps(self, batch: TokenBatch) -> Tensor:
        """[B, T]: the reference's log-probabilities (0 where the run has none)."""
        if self.means.reference is None:
            return torch.zeros(batch.input_ids.shape, device=batch.input_ids.device)
        with self.means.reference.active(self.trainer.policy) as model:
            return self.logps(model, batch)

    def _compare(self, rollout: Rollout, completions: Sequence[Completion]) -> None:
        """Say how far what sampling saw is from what was scored."""
        trainer, sampled = self.trainer, spread([c.logps for c in completions], rollout)
        difference = (rollout.old_logps - sampled).abs()
        trainer.meter.add({SAMPLING.name: (difference.sum(), rollout.loss_mask.sum())})
        exact = trainer.accelerator.mixed_precision == "no" and trainer.policy.dtype == torch.float32
        if exact and not self._warned and float(difference.max()) > SAME:
            self._warned = True
            logger.warning(
                "sampling and scoring differ by up to %.2g per token: this model's cached and uncached forward passes do not "
                "agree, so it is trained on what it would not quite have sampled",
                float(difference.max()),
            )


def extra_columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The data's own columns, beside the prompt."""
    names = [k for k in (rows[0] if rows else ()) if k not in ("prompt", "prompt_ids")]
    return {name: [row[name] for row in rows] for name in names}
