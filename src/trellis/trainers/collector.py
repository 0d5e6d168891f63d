"""From prompts to measured rollouts: sampling, judging, and scoring what was sampled."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from ..agents import RolloutFunc
from ..metrics import Metric, deviation
from ..models import Reference
from ..models.sharded import whole
from ..rewards import RewardResult, RewardSet
from ..rollout import (
    Completion,
    Driver,
    Engine,
    Episodes,
    InProcess,
    OneTurn,
    SamplingParams,
    spread,
    to_batch,
)
from ..scoring import in_chunks
from ..types import Metrics, Rollout, TokenBatch
from .ahead import AHEAD, Ahead, engine_apart
from .gather import gather_rows
from .said import Notes, Said, examples, said_as
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
    """What a trainer samples and judges with. `chunk_rows`: rows sampled or scored at once, without gradients; `engine`: who
    samples (default: the policy, in this process); `driver`: who leads from prompts to completions (default: one turn)."""

    sampling: SamplingParams
    rewards: RewardSet
    reference: Reference | None
    chunk_rows: int
    engine: Engine | None = None
    driver: Driver = field(default_factory=OneTurn)


class Collector:
    """Collects rollouts for an on-policy trainer. Everything random is a function of the seed, the rollout and the row."""

    def __init__(self, trainer: Any, means: Means, args: Any) -> None:
        self.trainer, self.means = trainer, means
        self.engine = engine_apart(args, means.engine or InProcess(means.chunk_rows), means.driver)
        self.ahead = Ahead(self) if args.rollout_staleness else None
        if isinstance(means.driver, RolloutFunc):
            means.driver.trainer = trainer
        self.said: Said | None = None
        self.shown: list[Row] = []
        self.notes = Notes()
        self._warned = False

    @property
    def metrics(self) -> list[Metric]:
        """What collecting adds to the meter."""
        found = [SAMPLING, *self.means.driver.metrics, *([] if self.ahead is None else AHEAD)]
        for name in self.means.rewards.names:
            mean, square, std = (f"rewards/{name}/{what}" for what in ("mean", "square", "std"))
            found += [
                Metric(mean, f"mean of {name} over the completions it applies to", hold=True),
                Metric(square, f"mean of {name}²", hold=True, hidden=True),
                Metric(std, f"standard deviation of {name} over completions", derive=deviation(mean, square)),
            ]
            if self.means.rewards.on_error == "skip":
                found.append(
                    Metric(
                        f"rewards/{name}/failed", f"share of completions on which {name} failed", hold=True
                    )
                )
        return found

    @property
    def exact(self) -> bool:
        """Whether rollouts are sampled from the very weights and numbers at which training on them begins."""
        return self.engine.exact and self.ahead is None

    def asked(self, number: int) -> tuple[list[Row], list[int], list[int]]:
        """What is sampled for rollout `number` here, per completion: prompt, the prompt's number in the data, and seed."""
        trainer, schedule = self.trainer, self.trainer.schedule
        places = schedule.places(trainer.args.process_index)
        rows, indices = trainer.prompts.rows(
            number * schedule.prompts, schedule.prompts, [place // schedule.samples for place in places]
        )
        return rows, indices, [derived_seed(trainer.args.seed, number, place) for place in places]

    def collect(self, number: int) -> tuple[Rollout, RewardResult]:
        """Rollout `number`, measured, with its verdict; all ranks' rows on every rank."""
        trainer, schedule = self.trainer, self.trainer.schedule
        places = schedule.places(trainer.args.process_index)
        rows, indices, seeds = self.asked(number)
        episodes = self.sample(rows, seeds) if self.ahead is None else self.ahead(number)
        trainer.meter.add(episodes.metrics)
        verdict = self.judge(rows, episodes)
        rollout = self.measure(rows, episodes, verdict, old=trainer.scores_old)
        if trainer.scores_old:
            self.compare(rollout.old_logps - rollout.sampled_logps, rollout.loss_mask)
        rollout.group = torch.tensor(places).to(rollout.group) // schedule.samples
        rollout.row = torch.tensor(indices).to(rollout.row)
        with trainer.watchdog.during("evaluating"):
            trainer.held_out.offer(number, rows, episodes, verdict)
        self.keep_said(rows, episodes, verdict)
        self.shown = examples(rows, episodes, verdict, self.texts)
        self.notes.add(verdict.logged)
        trainer.meter.add(self.failure_sums(verdict))
        if schedule.world > 1:
            rollout, verdict = gather_rows(trainer.accelerator, rollout, verdict)
        trainer.meter.add(self.reward_sums(verdict))
        return rollout, verdict

    def keep_said(self, rows: Sequence[Row], episodes: Episodes, verdict: RewardResult) -> None:
        """Keep what was asked and said, of all ranks, where the trainer shows it."""
        if not getattr(self.trainer.args, "log_completions", False):
            return
        said = zip(rows, self.texts(episodes.completions), episodes.completions, strict=True)
        completions = [said_as(row["prompt"], text, completion) for row, text, completion in said]
        mine = Said([row["prompt"] for row in rows], completions, dict(verdict.extra))
        self.said = mine.of_all_ranks(self.trainer.schedule.world)

    def reward_sums(self, verdict: RewardResult) -> Metrics:
        """Each reward's (sum, count) and (sum of squares, count) over the rows it applies to."""
        found: Metrics = {}
        for name, column in zip(self.means.rewards.names, verdict.per_function.T, strict=True):
            applies = column[~column.isnan()].double()
            count = float(len(applies))
            found[f"rewards/{name}/mean"] = (applies.sum(), count)
            found[f"rewards/{name}/square"] = ((applies**2).sum(), count)
        return found

    def failure_sums(self, verdict: RewardResult) -> Metrics:
        """Where failures are skipped: each reward's (failures, completions)."""
        if self.means.rewards.on_error != "skip":
            return {}
        rows = float(len(verdict.total))
        failed = {
            name: torch.tensor(float(verdict.failures.get(name, 0))) for name in self.means.rewards.names
        }
        return {f"rewards/{name}/failed": (count, rows) for name, count in failed.items()}

    def sample(self, rows: Sequence[Row], seeds: Sequence[int]) -> Episodes:
        """One episode per row (a prompt's samples side by side), by the policy in the precision it is trained in."""
        trainer = self.trainer
        if self.ahead is not None:
            self.ahead.wait()  # of evaluation: the engine takes over other weights now
        trainer.watchdog.beat("sampling")
        with trainer.accelerator.autocast(), whole(trainer.policy):
            self.engine.sync(trainer.policy, trainer.state.global_step)
            # An engine that several ranks share keeps them in step, however many turns each of them takes.
            with getattr(self.engine, "together", nullcontext)():
                return self.means.driver(rows, self.turn, seeds)

    def turn(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], limit: int | None = None
    ) -> list[Completion]:
        """One completion of each prompt, of at most `limit` tokens; equal prompts side by side are read once."""
        params = self.means.sampling
        if limit is not None:
            params = replace(params, max_new_tokens=min(limit, params.max_new_tokens))
        done: list[Completion] = []
        for n, several in runs(prompts):
            part = seeds[len(done) : len(done) + n * len(several)]
            done += self.engine(several, params, n=n, seeds=part)
        return done

    def weighed(self, advantages: Tensor, rollout: Rollout, level: str) -> Tensor:
        """[B, T] `advantages`, corrected for what older weights sampled; see `Ahead.weighed`."""
        return advantages if self.ahead is None else self.ahead.weighed(advantages, rollout, level)

    def close(self) -> None:
        """Training has ended."""
        self.engine.close()
        if self.ahead is not None:
            self.ahead.close()

    def texts(self, completions: Sequence[Completion]) -> list[str]:
        """What the completions say, without special tokens."""
        decode = self.trainer.processing_class.decode
        return [decode(c.ids, skip_special_tokens=True) for c in completions]

    def judge(self, rows: Sequence[Row], episodes: Episodes) -> RewardResult:
        """The rewards' verdict on completions, as texts or chats like their prompts."""
        self.trainer.watchdog.beat("asking the rewards")
        completions = episodes.completions
        return self.means.rewards(
            prompts=[row["prompt"] for row in rows],
            completions=[
                said_as(row["prompt"], text, completion)
                for text, row, completion in zip(self.texts(completions), rows, completions, strict=True)
            ],
            completion_ids=[c.ids for c in completions],
            columns={**extra_columns(rows), **episodes.columns},
            state=self.trainer.state,
            finished=[c.finish_reason == "stop" for c in completions],
        )

    @torch.no_grad()
    def measure(
        self, rows: Sequence[Row], episodes: Episodes, verdict: RewardResult, *, old: bool = True
    ) -> Rollout:
        """A rollout with everything known before advantages: log-probabilities old and of the reference, values, scores.

        Old ones are scored, not taken from sampling: with unchanged weights every ratio is then 1 and every KL 0, to the bit, in
        any precision. `old=False`: the trainer needs none, and they are what sampling said.
        """
        trainer, completions = self.trainer, episodes.completions
        trainer.watchdog.beat("scoring")
        trainer.model.eval()
        prompts = [row["prompt_ids"] for row in rows] if episodes.prompts is None else episodes.prompts
        same = [n for n, (_, group) in enumerate(groupby(prompts)) for _ in group]
        batch = to_batch(prompts, completions, group=same).to(trainer.args.device)
        sampled = spread([c.logps for c in completions], batch)
        blank = torch.zeros_like(sampled)
        old_logps, values = trainer.look(batch) if old else (sampled, blank)
        return Rollout(
            **{f.name: getattr(batch, f.name) for f in fields(TokenBatch)},
            old_logps=old_logps,
            ref_logps=self.ref_logps(batch),
            sampled_logps=sampled,
            values=values,
            rewards=blank.clone(),
            advantages=blank.clone(),
            returns=blank.clone(),
            scores=verdict.total.to(blank.device),
            finished=torch.tensor([c.finish_reason == "stop" for c in completions], device=blank.device),
            row=torch.zeros(len(batch), dtype=torch.long, device=blank.device),
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

    def compare(self, difference: Tensor, mask: Tensor) -> None:
        """Say how far what sampling saw is from what was scored: `difference` [B, T] of their log-probabilities."""
        trainer, difference = self.trainer, difference.detach().abs() * mask
        trainer.meter.add({SAMPLING.name: (difference.sum(), mask.sum())})
        exact = trainer.accelerator.mixed_precision == "no" and trainer.policy.dtype == torch.float32
        if not (exact and self.exact) or self._warned:
            return
        worst, self._warned = float(difference.max()) if difference.numel() else 0.0, True
        if worst > SAME:
            logger.warning(
                "sampling and scoring differ by up to %.2g per token: this model's cached and uncached forward passes do not "
                "agree, so it is trained on what it would not quite have sampled",
                worst,
            )


def runs(prompts: Sequence[Sequence[int]]) -> Iterator[tuple[int, list[Sequence[int]]]]:
    """(n, prompts): the prompts in their order, each n times side by side, in as few parts as there are changes of n."""
    counted = [(len(list(group)), prompt) for prompt, group in groupby(prompts)]
    for n, part in groupby(counted, key=lambda pair: pair[0]):
        yield n, [prompt for _, prompt in part]


def extra_columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The data's own columns, beside the prompt."""
    names = [k for k in (rows[0] if rows else ()) if k not in ("prompt", "prompt_ids")]
    return {name: [row[name] for row in rows] for name in names}
