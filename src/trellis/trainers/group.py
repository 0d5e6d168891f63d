"""GroupTrainer: several completions of each prompt, whose advantages come from each other instead of a critic."""

from __future__ import annotations

import logging
import time
from dataclasses import fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..advantages import group_statistics
from ..engines import engine_for
from ..metrics import Metric
from ..monitor import CompletionLog
from ..rewards import RewardResult
from ..types import Metrics, Rollout
from .follow import FollowPolicy, own_weights
from .group_metrics import ROLLOUT, STEP, Extremes, length_sums, reward_sums
from .group_setup import GroupParts
from .on_policy import OnPolicyTrainer
from .verdicts import Silence, warn_of_silence

logger = logging.getLogger(__name__)
KL = Metric("kl", "mean KL of the policy to its reference over trained tokens, by k3")


class GroupTrainer(OnPolicyTrainer):
    """The base of GRPO and RLOO. They say `advantages_of(rollout, verdict, group)` → [B], and `loss`."""

    counted = ("extremes",)
    metrics: ClassVar[list[Metric]] = STEP + ROLLOUT

    def __init__(
        self, parts: GroupParts, *, compute_metrics: Any, callbacks: Any, optimizers: tuple[Any, Any]
    ) -> None:
        args = parts.args
        self.extremes = Extremes()
        self.silence = Silence()
        self.tokens_seen = 0
        self.clock = (0, time.perf_counter())
        super().__init__(
            **vars(parts), compute_metrics=compute_metrics, callbacks=callbacks, optimizers=optimizers
        )
        self.completions = CompletionLog(
            args.output_dir, count=args.num_completions_to_print, unique=args.log_unique_prompts
        )
        self.collector.engine = (
            engine_for(self.args, model=self.policy, accelerator=self.accelerator) or self.collector.engine
        )
        self._warn_about_dropout()
        if args.sync_ref_model:
            self.add_callback(FollowPolicy(self))

    @property
    def reference(self) -> Any:
        """Where there is a KL penalty, what the policy is held near."""
        return self.collector.means.reference

    @property
    def eval_samples(self) -> int:
        return self.args.num_generations_eval or self.args.num_generations

    @property
    def scores_old(self) -> bool:
        """Where a rollout is one optimizer step of one pass, the policy's own log-probabilities are the old ones."""
        return self.schedule.steps > 1 or not self.collector.exact

    def _warn_about_dropout(self) -> None:
        rates = [m.p for m in self.model.modules() if isinstance(m, torch.nn.Dropout)]
        if self.scores_old and any(rates):  # else the old ones are those that training sees
            logger.warning(
                "the model has dropout (up to %g), which training applies and sampling does not: ratios begin around 1, not at "
                "it; write disable_dropout=True",
                max(rates),
            )

    # ---- once per rollout ----------------------------------------------------------------------------------------------

    def advantages_of(self, rollout: Rollout, verdict: RewardResult, group: Tensor) -> Tensor:
        """[B]: the advantage of each completion; `group` [B] numbers the prompts."""
        raise TypeError(f"{type(self).__name__} must define advantages_of(rollout, verdict, group)")

    def reward_of(self, rollout: Rollout, verdict: RewardResult) -> None:
        rollout.scores = verdict.total.to(rollout.scores)

    def fill(self, rollout: Rollout, verdict: RewardResult) -> None:
        self.reward_of(rollout, verdict)
        group, applies = self.groups(len(rollout), rollout), verdict.applicable.to(rollout.scores.device)
        self.silence = warn_of_silence(self, self.silence, rollout, verdict, group)
        advantages = self.advantages_of(rollout, verdict, group)
        rollout.advantages = advantages[:, None] * rollout.loss_mask
        self.meter.add(self.rollout_sums(rollout, verdict, group, applies))
        self.tokens_seen += int(rollout.lengths.sum())
        self.keep_completions(rollout, verdict, advantages)
        if self.args.mask_truncated_completions:
            leave_out(rollout, ~rollout.finished)

    def groups(self, rows: int, rollout: Rollout) -> Tensor:
        """[B]: rows of one prompt's draw share a number, also where the same prompt is drawn twice."""
        return torch.arange(rows, device=rollout.scores.device) // self.schedule.samples

    def rollout_sums(
        self, rollout: Rollout, verdict: RewardResult, group: Tensor, applies: Tensor
    ) -> Metrics:
        """(sum, count) of what a rollout is measured by."""
        std = group_statistics(rollout.scores, group, applies)[1]
        return {**length_sums(rollout), **reward_sums(rollout.scores, std, applies)}

    def keep_completions(self, rollout: Rollout, verdict: RewardResult, advantages: Tensor) -> None:
        """Put the rollout's completions where the next log finds them."""
        said = self.collector.said
        if not self.args.log_completions or said is None:
            return
        names = self.collector.means.rewards.names
        rewards = {name: verdict.per_function[:, i] for i, name in enumerate(names)}
        self.completions.add(
            self.state.global_step, said.prompts, said.completions, rewards, advantages, said.extra
        )

    # ---- once per optimizer step -----------------------------------------------------------------------------------------

    def settle(self) -> None:
        """The optimizer step is over: its extremes join the metrics."""
        self.meter.add(self.extremes.settle(self.accelerator.gather))

    def get_batch_samples(self, *args: Any) -> tuple[list[Any], Tensor]:
        self.settle()
        return super().get_batch_samples(*args)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self.settle()
            step, since = self.clock
            self.clock = (self.state.global_step, time.perf_counter())
            logs["step_time"] = (self.clock[1] - since) / max(1, self.clock[0] - step)
            logs["num_tokens"] = float(self.tokens_seen)
            if self.args.log_completions and self.is_world_process_zero():
                self.completions.flush(self.state.global_step, self.callback_handler.callbacks)
        super().log(logs, start_time)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        if not resume_from_checkpoint:
            self.tokens_seen = 0
        self.extremes, self.clock = Extremes(), (self.state.global_step, time.perf_counter())
        return super().train(resume_from_checkpoint, **kwargs)

    # ---- evaluation and resume -------------------------------------------------------------------------------------------

    def held_out_metrics(self, rollout: Rollout, verdict: RewardResult) -> dict[str, float]:
        group = torch.arange(len(rollout), device=rollout.scores.device) // self.eval_samples
        sums = self.rollout_sums(rollout, verdict, group, verdict.applicable.to(group.device))
        found = {
            name: float(total) / float(count) for name, (total, count) in sums.items() if float(count) > 0
        }
        if self.reference is not None:
            kl = ((rollout.old_logps - rollout.ref_logps) * rollout.loss_mask).sum(1)
            found["kl"] = float(kl.mean())
        return found

    def extra_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        self.settle()
        tensors, plain = super().extra_state()
        if self.args.sync_ref_model:
            followed = own_weights(self.reference)
            tensors = {**tensors, **{f"reference.{n}": w.detach() for n, w in followed.items()}}
        return tensors, {**plain, "group": {"tokens_seen": self.tokens_seen}}

    def load_extra_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        super().load_extra_state(tensors, plain)
        self.tokens_seen = plain["group"]["tokens_seen"]
        self.clock = (self.state.global_step, time.perf_counter())
        if self.args.sync_ref_model:
            for name, weight in own_weights(self.reference).items():
                weight.data.copy_(tensors[f"reference.{name}"])


def leave_out(rollout: Rollout, rows: Tensor) -> None:
    """Nothing of `rows` [B] bool is trained: their tokens leave the mask, and all that is per token is 0 there."""
    keep = rollout.loss_mask & ~rows[:, None]
    for f in fields(Rollout):
        value = getattr(rollout, f.name)
        if value.shape == keep.shape and value.is_floating_point():
            setattr(rollout, f.name, value * keep)
    rollout.loss_mask = keep
