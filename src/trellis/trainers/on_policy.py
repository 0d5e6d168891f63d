"""OnPolicyTrainer: rollouts, which Hugging Face's loop consumes minibatch by minibatch.

Everything random is a pure function: prompts of rollout i are f(seed, i), the draws of a row f(seed, i, row), the minibatches of
an epoch f(seed, i, epoch). So a run resumed inside a rollout needs only the rollout itself, and neither the number of ranks nor
the size of a micro-batch changes what is learned from what.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..losses.policy import k1, k3
from ..metrics import Metric
from ..rewards import RewardResult
from ..types import Metrics, Rollout, TokenBatch
from .base import PostTrainer
from .collector import Collector, Means
from .held_out import HeldOut
from .prompts import prompts_of
from .schedule import Schedule
from .seeds import derived_seed

logger = logging.getLogger(__name__)
START = Metric(
    "ratio/off_at_start",
    "mean |log π − log π_old| over trained tokens of a rollout's first optimizer step: 0 but for rounding and dropout",
    hold=True,
)


class OnPolicyTrainer(PostTrainer):
    """The base of trainers that sample what they train on. Besides `items` and `loss`, they say `reward_of(rollout, verdict)` and
    `fill(rollout, verdict)`: from rewards to advantages, without gradients, on the whole rollout of all ranks.
    """

    def __init__(
        self,
        model: nn.Module,
        args: Any,
        *,
        schedule: Schedule,
        means: Means,
        tables: int = 0,
        compute_metrics: Any = None,
        **hf: Any,
    ) -> None:
        self.schedule = schedule
        self.rollout: Rollout | None = None
        self.rollout_index = 0  # of the next rollout; the one in use has index rollout_index - 1
        self.cursor = schedule.steps  # optimizer steps taken on the rollout in use
        self.started, self.episodes_at_start = time.perf_counter(), 0
        self.collector = Collector(self, means, args)
        super().__init__(model, self._loop_args(args), **hf)
        seed = args.seed if args.data_seed is None else args.data_seed
        self.prompts = prompts_of(self.train_dataset, seed, shuffle=getattr(args, "shuffle_dataset", True))
        self.held_out = HeldOut(self, tables, compute_metrics)

    def _loop_args(self, args: Any) -> Any:
        """A copy of the user's arguments in which the loop below finds its own numbers."""
        schedule, mine = self.schedule, copy.copy(args)
        mine.gradient_accumulation_steps = schedule.micro_steps
        if mine.max_steps <= 0:
            mine.max_steps = schedule.rollouts * schedule.steps
        return mine

    # ---- what a trainer says -------------------------------------------------------------------------------------------

    @property
    def policy(self) -> Any:
        """The module that samples and is scored."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def places(self) -> range:
        """The rows of a rollout that this process samples."""
        return self.schedule.places(self.args.process_index)

    @property
    def scores_old(self) -> bool:
        """Whether a rollout's log-probabilities are scored before it is trained on, or taken from sampling."""
        return True

    def look(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """([B, T] log-probabilities of the policy, [B, T] values of its critic: 0 where there is none), without gradients."""
        logps = self.collector.logps(self.policy, batch)
        return logps, torch.zeros_like(logps)

    def reward_of(self, rollout: Rollout, verdict: RewardResult) -> Any:
        """Set the rollout's `scores` and `rewards` in place."""
        raise TypeError(f"{type(self).__name__} must define reward_of(rollout, verdict)")

    def fill(self, rollout: Rollout, verdict: RewardResult) -> None:
        """Set `scores`, `rewards`, `advantages` and `returns` of the rollout in place; add its metrics to the meter."""
        raise TypeError(f"{type(self).__name__} must define fill(rollout, verdict)")

    @property
    def eval_samples(self) -> int:
        """Completions per prompt in evaluation."""
        return 1

    def held_out_metrics(self, rollout: Rollout, verdict: RewardResult) -> dict[str, float]:
        """What evaluation reports of held-out prompts' completions, whose `scores` and `rewards` are set."""
        found = {
            "objective/scores": float(rollout.scores.mean()),
            "response/length": float(rollout.loss_mask.sum(1).float().mean()),
            "response/truncated": float((~rollout.finished).float().mean()),
        }
        if self.collector.means.reference is not None:
            for name, estimate in (("objective/kl", k1), ("objective/kl_k3", k3)):
                kl = estimate(rollout.old_logps, rollout.ref_logps) * rollout.loss_mask
                found[name] = float(kl.sum(1).mean())
        return found

    def declared_metrics(self) -> list[Metric]:
        return [*self.metrics, START, *self.collector.metrics]

    def at_start(self, difference: Tensor, mask: Tensor) -> Metrics:
        """(sum, count) of how far log π is from log π_old ([B, T] `difference`) in the first step on a rollout; else nothing."""
        if self.cursor != 1 or not torch.is_grad_enabled():
            return {}
        return {START.name: ((difference.detach().abs() * mask).sum(), mask.sum())}

    # ---- what the loop below asks for ----------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """One empty item per micro-batch: the loop counts them, rows come from rollouts."""
        return DataLoader(range(self.args.max_steps * self.schedule.micro_steps), batch_size=1)  # type: ignore[arg-type]

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        self.watchdog.beat("reading data")
        self._load_rng_state(self.resumed_from)
        if self.cursor >= self.schedule.steps:
            if self.rollout_index >= self.schedule.rollouts:
                return [], torch.ones(())  # early stops have left optimizer steps over
            self.rollout = self.next_rollout()
        assert self.rollout is not None
        parts = self.minibatch_index().split(self.schedule.micro_rows)
        batches = [self.rollout.rows(part) for part in parts]
        self.cursor += 1
        return batches, self.count_items(batches)

    def next_rollout(self) -> Rollout:
        """A new rollout with its advantages; the same on every rank."""
        rollout, verdict = self.collector.collect(self.rollout_index)
        with torch.no_grad():
            self.fill(rollout, verdict)
        self.rollout_index += 1
        self.cursor = 0
        return rollout

    def abandon_data(self) -> None:
        self.cursor = self.schedule.steps
        if self.collector.ahead is not None:
            self.collector.ahead.drop()

    def minibatch_index(self) -> Tensor:
        """This rank's rows of the next minibatch."""
        epoch, number = divmod(self.cursor, self.schedule.minibatches)
        seed = derived_seed(self.args.seed, "minibatches", self.rollout_index - 1, epoch)
        rows = self.shuffled(torch.Generator().manual_seed(seed)).view(self.schedule.minibatches, -1)[number]
        return rows.view(self.schedule.world, -1)[self.args.process_index].to(self.args.device)

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """[rows]: the rollout's rows in a random order that keeps a prompt's samples side by side, where they can share it."""
        prompts, samples = self.schedule.prompts, self.schedule.samples
        first = torch.randperm(prompts, generator=generator)[:, None] * samples
        if samples == 1:
            return first.flatten()
        within = torch.rand(prompts, samples, generator=generator).argsort(dim=1)
        return (first + within).flatten()

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule of the arguments, held constant within a rollout: what was sampled at one rate is trained at one."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        steps = self.schedule.steps
        if isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
            scheduler.lr_lambdas = [lambda s, f=f: f(s - s % steps) for f in scheduler.lr_lambdas]
        return scheduler

    @property
    def episodes(self) -> int:
        """Completions sampled so far, over all ranks."""
        return self.rollout_index * self.schedule.rows

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        logger.info("%s", self.schedule)
        if not resume_from_checkpoint:
            self.rollout, self.rollout_index, self.cursor = None, 0, self.schedule.steps
        self.started, self.episodes_at_start = time.perf_counter(), 0
        try:
            return super().train(resume_from_checkpoint, **kwargs)
        finally:
            self.collector.close()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            elapsed = max(time.perf_counter() - self.started, 1e-9)
            logs["eps"] = (self.episodes - self.episodes_at_start) / elapsed
            logs["episode"] = self.episodes
            logs["lr"] = logs["learning_rate"]
            logs.update(self.collector.notes.means(self.schedule.world))
            epochs = self.prompts.epochs(self.rollout_index * self.schedule.prompts)
            self.state.epoch = self.state.epoch if epochs is None else epochs
        super().log(logs, start_time)

    # ---- evaluation ----------------------------------------------------------------------------------------------------

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Sample for each held-out prompt (without an eval set: the first training prompts); see `HeldOut.evaluate`."""
        data = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(data, Mapping):
            parts = [
                self.evaluate(part, ignore_keys, f"{metric_key_prefix}_{name}") for name, part in data.items()
            ]
            return {name: value for part in parts for name, value in part.items()}
        with self.watchdog.during("evaluating"):
            found = self.held_out.evaluate(data)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # ---- resume --------------------------------------------------------------------------------------------------------

    def extra_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, plain = super().extra_state()
        if self.rollout is not None and self.cursor < self.schedule.steps:
            tensors |= {f"rollout.{f.name}": getattr(self.rollout, f.name) for f in fields(Rollout)}
        notes = self.collector.notes.sums
        plain["on_policy"] = {"rollout_index": self.rollout_index, "cursor": self.cursor, "notes": notes}
        if self.collector.ahead is not None:
            ahead, plain["on_policy"]["ahead"] = self.collector.ahead.state(self.places)
            tensors |= ahead
        return tensors, plain

    def load_extra_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        super().load_extra_state(tensors, plain)
        self.rollout_index, self.cursor = plain["on_policy"]["rollout_index"], plain["on_policy"]["cursor"]
        self.collector.notes.sums = {name: list(pair) for name, pair in plain["on_policy"]["notes"].items()}
        self.episodes_at_start = self.episodes
        found = {
            f.name: tensors[f"rollout.{f.name}"] for f in fields(Rollout) if f"rollout.{f.name}" in tensors
        }
        self.rollout = Rollout(**found).to(self.args.device) if found else None
        if self.collector.ahead is not None:
            self.collector.ahead.load(tensors, plain["on_policy"].get("ahead"), self.places)
