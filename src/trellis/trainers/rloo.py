"""RLOO: REINFORCE whose baseline is the mean of the prompt's other completions. Ahmadian et al. 2024 (2402.14740)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from ..advantages import last_token, leave_one_out, standardized
from ..losses.group import PolicyStep, sequence_clipped
from ..metrics import Metric
from ..rewards import RewardResult
from ..types import LossOutput, Rollout
from .group import GroupTrainer
from .group_metrics import clip_sums
from .group_setup import GroupAsked, build_group_parts
from .old_arguments import takes_old_arguments
from .rloo_config import RLOOConfig

__all__ = ["RLOOConfig", "RLOOTrainer"]


class RLOOTrainer(GroupTrainer):
    """REINFORCE with a leave-one-out baseline, on a causal language model; arguments as those of GRPOTrainer.

    The KL penalty is part of the reward, and the ratio is that of the whole completion.

    Raises ValueError or TypeError, before anything is trained, for what does not fit together.
    """

    metrics: ClassVar[list[Metric]] = [
        *GroupTrainer.metrics,
        Metric("kl", "mean over completions of Σ_t log π_old − log π_ref", hold=True),
    ]

    @takes_old_arguments(RLOOConfig)
    def __init__(
        self,
        model: Any = None,
        reward_funcs: Any = None,
        args: RLOOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        reward_processing_classes: Any = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: Any = None,
        *,
        ref_model: Any = None,
        compute_metrics: Any = None,
        engine: Any = None,
    ) -> None:
        parts = build_group_parts(
            GroupAsked(
                owner="RLOOTrainer",
                config=RLOOConfig,
                model=model,
                reward_funcs=reward_funcs,
                args=args,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                reward_processing_classes=reward_processing_classes,
                peft_config=peft_config,
                ref_model=ref_model,
                engine=engine,
            )
        )
        super().__init__(parts, compute_metrics=compute_metrics, callbacks=callbacks, optimizers=optimizers)

    @property
    def scores_old(self) -> bool:
        """The penalty in the reward asks for exact ones too."""
        return super().scores_old or self.args.beta > 0

    def reward_of(self, rollout: Rollout, verdict: RewardResult) -> None:
        super().reward_of(rollout, verdict)
        if self.args.reward_clip_range is not None:
            rollout.scores = rollout.scores.clamp(*self.args.reward_clip_range)

    def advantages_of(self, rollout: Rollout, verdict: RewardResult, group: Tensor) -> Tensor:
        args, applies = self.args, verdict.applicable.to(group.device)
        rewards = rollout.scores
        if args.beta > 0:
            kl = ((rollout.old_logps - rollout.ref_logps) * rollout.loss_mask).sum(1)
            self.meter.add({"kl": (kl.sum(), float(len(kl)))})
            rewards = rewards - args.beta * kl
        advantages = leave_one_out(rewards, group, applies)
        return standardized(advantages, applies) if args.normalize_advantages else advantages

    def fill(self, rollout: Rollout, verdict: RewardResult) -> None:
        super().fill(rollout, verdict)
        rollout.advantages = self.collector.weighed(rollout.advantages, rollout, "sequence")

    def items(self, batch: Rollout) -> int:
        return len(batch)

    def loss(self, model: nn.Module, batch: Rollout) -> LossOutput:
        args, mask = self.args, batch.loss_mask
        found = self.score(model, batch, temperature=args.temperature, entropy=True)
        old = batch.old_logps if self.scores_old else found.logps.detach()
        if not self.scores_old:
            self.collector.compare(found.logps - batch.sampled_logps, mask)
        advantages = batch.advantages.gather(1, last_token(mask)[:, None])[:, 0]
        step = PolicyStep(found.logps, old, advantages, mask)
        loss, _, low, high = sequence_clipped(step, epsilon=args.epsilon, epsilon_high=args.epsilon_high)
        trained = mask.any(1, keepdim=True)
        low, high = low[:, None], high[:, None]
        self.extremes.note(low, high, trained)
        entropy = found.entropy.detach() * mask  # type: ignore[union-attr]
        metrics = {"entropy": (entropy.sum(), mask.sum()), **clip_sums(low, high, trained)}
        metrics |= self.at_start(found.logps - old, mask)
        return LossOutput((loss * trained[:, 0]).sum(), metrics)
