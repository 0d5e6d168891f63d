"""GRPO: a completion's advantage is how much better it did than the others of its prompt. Shao et al. 2024 (2402.03300)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..advantages import group_normalized, normalize_then_sum, top_entropy_mask
from ..losses.correction import correction, off_policy_mask
from ..losses.group import PolicyStep, Terms, kl_term
from ..metrics import Metric
from ..rewards import RewardResult
from ..scoring import in_chunks
from ..types import LossOutput, Rollout, TokenBatch
from .group import KL, GroupTrainer
from .group_metrics import CORRECTION, clip_sums, correction_sums
from .group_setup import GroupAsked, build_group_parts
from .grpo_config import GRPOConfig
from .old_arguments import takes_old_arguments

__all__ = ["GRPOConfig", "GRPOTrainer"]

OWN = {
    "cispo": Metric(
        "cispo_clip_ratio", "share of trained tokens with a positive advantage whose weight is cut off"
    ),
    "vespo": Metric("vespo/phi_seq_mean", "mean weight φ of trained tokens"),
}
EXTRA = {"cispo_clip": "cispo_clip_ratio", "phi": "vespo/phi_seq_mean"}


class GRPOTrainer(GroupTrainer):
    """Group relative policy optimisation of a causal language model.

    model: a module, its name or path. reward_funcs: functions, async functions, names of ready rewards, classifiers, or several
    of these. `train_dataset`: prompts as texts, chats or token ids; other columns reach the reward functions. `ref_model=None`:
    the policy as it is now, kept only where `beta` > 0. `compute_metrics(prompts=, completions=, scores=, **columns)` adds to
    `evaluate()`. `tools`, `environment_factory` and `rollout_func`: conversations, see docs/agents.md; `engine`: another sampler,
    see docs/engines.md.

    Raises ValueError or TypeError, before anything is trained, for what does not fit together.
    """

    metrics: ClassVar[list[Metric]] = [
        *GroupTrainer.metrics,
        Metric("policy_loss", "mean loss without KL and entropy, over the loss's items"),
        Metric("entropy_coef", "weight of the entropy bonus"),
        KL,
        *CORRECTION,
        *OWN.values(),
    ]

    @takes_old_arguments(GRPOConfig)
    def __init__(
        self,
        model: Any = None,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        reward_processing_classes: Any = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: Any = None,
        tools: Any = None,
        rollout_func: Any = None,
        environment_factory: Any = None,
        *,
        ref_model: Any = None,
        compute_metrics: Any = None,
        engine: Any = None,
    ) -> None:
        parts = build_group_parts(
            GroupAsked(
                owner="GRPOTrainer",
                config=GRPOConfig,
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
                tools=tools,
                environment_factory=environment_factory,
                rollout_func=rollout_func,
            )
        )
        self.objective = parts.args.objective()
        self.entropy_coef = parts.args.entropy_coef
        self.step_entropy = torch.zeros(2, dtype=torch.float64)
        super().__init__(parts, compute_metrics=compute_metrics, callbacks=callbacks, optimizers=optimizers)

    # ---- once per rollout ----------------------------------------------------------------------------------------------

    @property
    def scores_old(self) -> bool:
        args = self.args
        return (
            super().scores_old or args.top_entropy_quantile < 1 or args.off_policy_mask_threshold is not None
        )

    def look(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """([B, T] log-probabilities, [B, T] entropy where the trainer picks tokens by it, else 0)."""
        if self.args.top_entropy_quantile == 1:
            return super().look(batch)

        def both(part: TokenBatch) -> Tensor:
            found = self.score(self.policy, part, temperature=self.args.temperature, entropy=True)
            return torch.stack([found.logps, found.entropy], dim=-1)  # type: ignore[list-item]

        with torch.no_grad():
            logps, entropy = in_chunks(both, batch, self.collector.means.chunk_rows).unbind(-1)
        return logps, entropy

    def advantages_of(self, rollout: Rollout, verdict: RewardResult, group: Tensor) -> Tensor:
        args, applies = self.args, verdict.applicable.to(group.device)
        if args.multi_objective_aggregation == "normalize_then_sum":
            weights = self.collector.means.rewards.weights
            found = normalize_then_sum(verdict.per_function.to(group.device), weights, group, applies)
            return found.to(rollout.scores)
        return group_normalized(rollout.scores, group, scale=args.scale_rewards, applies=applies)

    def fill(self, rollout: Rollout, verdict: RewardResult) -> None:
        super().fill(rollout, verdict)
        args, mask = self.args, rollout.loss_mask
        # Every loss is linear in the advantage's size, so what weighs or drops tokens is settled here, for the whole rollout.
        if args.top_entropy_quantile < 1:
            rollout.advantages = rollout.advantages * top_entropy_mask(
                rollout.values, mask, args.top_entropy_quantile
            )
        if not self.collector.exact and self.objective.name == "vespo":
            rollout.old_logps = rollout.sampled_logps  # its own weight spans from the engine to the policy
        elif not self.collector.exact:
            weights = self.correction(rollout)
            self.meter.add(correction_sums(rollout.old_logps - rollout.sampled_logps, weights, mask))
            rollout.advantages = rollout.advantages * weights

    def correction(self, rollout: Rollout) -> Tensor:
        """[B, T]: what makes up for the engine's other numbers (1 where that is switched off)."""
        args, mask = self.args, rollout.loss_mask
        if not args.vllm_importance_sampling_correction:
            return mask.to(rollout.advantages)
        return correction(
            rollout.old_logps,
            rollout.sampled_logps,
            mask,
            mode=args.vllm_importance_sampling_mode,
            clip_max=args.vllm_importance_sampling_clip_max,
            clip_min=args.vllm_importance_sampling_clip_min,
        )

    # ---- once per micro-batch ------------------------------------------------------------------------------------------

    def items(self, batch: Rollout) -> Tensor:
        if self.objective.per != "rollout" or self.rollout is None:
            return self.objective.items(batch.loss_mask).sum()
        return self.rollout.loss_mask.sum() * (len(batch) / len(self.rollout))

    def loss(self, model: nn.Module, batch: Rollout) -> LossOutput:
        args, mask = self.args, batch.loss_mask
        found = self.score(model, batch, temperature=args.temperature, entropy=True)
        old = batch.old_logps if self.scores_old else found.logps.detach()
        if not self.scores_old:
            self.collector.compare(found.logps - batch.sampled_logps, mask)
        step = PolicyStep(found.logps, old, batch.advantages, mask)
        terms, weights = self.objective(step), self.objective.weights(mask)
        per_token = terms.loss
        if args.off_policy_mask_threshold is not None:
            drift = PolicyStep(found.logps, batch.sampled_logps, batch.advantages, mask)
            per_token = per_token * off_policy_mask(drift, threshold=args.off_policy_mask_threshold)[:, None]
        metrics = self.step_sums(batch, terms, found.entropy, per_token * weights)
        if self.objective.name != "vespo":  # whose old ones are another engine's
            metrics |= self.at_start(found.logps - old, mask)
        if args.beta > 0:
            kl = kl_term(found.logps, batch.ref_logps, terms.ratio if args.use_bias_correction_kl else None)
            per_token = per_token + args.beta * kl
            metrics["kl"] = ((kl.detach() * mask).sum(), mask.sum())
        if args.entropy_coef > 0 or args.use_adaptive_entropy:
            per_token = per_token - self.entropy_coef * found.entropy
        return LossOutput((per_token * weights).sum(), metrics)

    def step_sums(self, batch: Rollout, terms: Terms, entropy: Any, policy: Tensor) -> dict[str, Any]:
        """(sum, count) of a micro-batch's metrics; `policy` [B, T]: its weighted loss without KL and entropy."""
        mask = batch.loss_mask
        tokens, total = mask.sum(), (entropy.detach() * mask).sum()
        if self.args.use_adaptive_entropy:
            self.step_entropy += torch.tensor([float(total), float(tokens)], dtype=torch.float64)
        self.extremes.note(terms.low, terms.high, mask)
        own = {EXTRA[name]: ((value * mask).sum(), tokens) for name, value in terms.extra.items()}
        return {
            "entropy": (total, tokens),
            "entropy_coef": (torch.tensor(self.entropy_coef), 1.0),
            "policy_loss": (policy.detach().sum(), self.items(batch)),
            **clip_sums(terms.low, terms.high, mask),
            **own,
        }

    # ---- the adaptive entropy bonus ----------------------------------------------------------------------------------------

    def get_batch_samples(self, *args: Any) -> tuple[list[Any], Tensor]:
        if self.args.use_adaptive_entropy:
            self.adapt_entropy()
        return super().get_batch_samples(*args)

    def adapt_entropy(self) -> None:
        """Skywork-OR1 2025 (2505.22312), §4.3: the weight follows the sign of target − entropy of the step before."""
        args = self.args
        total, tokens = self.sum_over_ranks(self.step_entropy)
        self.step_entropy = torch.zeros(2, dtype=torch.float64)
        if tokens > 0:
            below = float(total / tokens) < args.entropy_target
            moved = self.entropy_coef + (args.entropy_coef_delta if below else -args.entropy_coef_delta)
            self.entropy_coef = min(args.entropy_coef_max, max(args.entropy_coef_min, moved))

    def extra_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, plain = super().extra_state()
        own = {"entropy_coef": self.entropy_coef, "step_entropy": self.step_entropy.tolist()}
        return tensors, {**plain, "grpo": own}

    def load_extra_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        super().load_extra_state(tensors, plain)
        self.entropy_coef = plain["grpo"]["entropy_coef"]
        self.step_entropy = torch.tensor(plain["grpo"]["step_entropy"], dtype=torch.float64)
