"""PPO for language models: a policy, its frozen reference, rewards, and a critic.

Stiennon et al. 2020 (2009.01325), Schulman et al. 2017 (1707.06347); the details follow "The N+ Implementation Details of RLHF
with PPO" (2403.17031).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..advantages import gae, place_score, whiten
from ..losses.policy import KL_ESTIMATORS, clipped_surrogate, clipped_value
from ..metrics import Metric
from ..models import ActorCritic, Apart
from ..models.sharded import sharding_of, whole
from ..rewards import RewardResult
from ..rollout import spread
from ..scoring import in_chunks, inside, score, token_values
from ..types import LossOutput, Rollout, TokenBatch
from .old_arguments import gone, takes_old_arguments
from .on_policy import OnPolicyTrainer
from .ppo_config import PPOConfig
from .ppo_metrics import MINIBATCH, ROLLOUT, minibatch_sums, rollout_sums
from .ppo_setup import Asked, build_parts

__all__ = ["PPOConfig", "PPOTrainer"]


class PPOTrainer(OnPolicyTrainer):
    """Proximal policy optimisation of a causal language model with a critic.

    model, ref_model, reward_model, value_model: modules, or names or paths. `ref_model=None`: the policy as it is now.
    `value_model=None`: a value head on the policy's trunk. `reward_model` and `reward_funcs` may both be given (functions, async
    functions, classifiers; a reward model gets text and may have its own tokenizer). `train_dataset`: prompts as texts, chats
    or token ids; other columns reach the reward functions. `compute_metrics(prompts=, completions=, scores=, **columns)` adds to
    `evaluate()`. `config`, `tokenizer` and `dataset` are older names of `args`, `processing_class` and `train_dataset`.

    Raises ValueError or TypeError, before anything is trained, for what does not fit together.
    """

    counted = ("step_kl",)
    metrics: ClassVar[list[Metric]] = MINIBATCH + ROLLOUT

    @takes_old_arguments(PPOConfig)
    def __init__(
        self,
        args: PPOConfig | None = None,
        processing_class: Any = None,
        model: Any = None,
        ref_model: Any = None,
        reward_model: Any = None,
        train_dataset: Any = None,
        value_model: Any = None,
        data_collator: Any = None,
        eval_dataset: Any = None,
        optimizers: tuple[Any, Any] = (None, None),
        callbacks: list[Any] | None = None,
        peft_config: Any = None,
        *,
        reward_funcs: Any = None,
        reward_processing_classes: Any = None,
        value_peft_config: Any = None,
        compute_metrics: Any = None,
        config: PPOConfig | None = None,
        tokenizer: Any = None,
        dataset: Any = None,
    ) -> None:
        parts = build_parts(
            Asked(
                args=args if args is not None else config,
                processing_class=processing_class if processing_class is not None else tokenizer,
                model=model,
                ref_model=ref_model,
                reward_model=reward_model,
                reward_funcs=reward_funcs,
                reward_processing_classes=reward_processing_classes,
                train_dataset=train_dataset if train_dataset is not None else dataset,
                eval_dataset=eval_dataset,
                value_model=value_model,
                data_collator=data_collator,
                peft_config=peft_config,
                value_peft_config=value_peft_config,
            )
        )
        self.kl_coef = parts.args.kl_coef
        self.step_kl = torch.zeros(2, dtype=torch.float64)
        self._divisor: Tensor | int | None = None
        super().__init__(
            **vars(parts),
            tables=parts.args.num_sample_generations,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
        )

    step = gone(
        "step",
        "train() runs the whole loop with what reward_funcs return; a loop of your own is 40 lines, see examples/bare_ppo.py",
    )
    generate_completions = gone(
        "generate_completions", "write evaluate(); num_sample_generations=… shows tables"
    )
    generate = gone("generate", "write trellis.rollout.sample(model, prompts, SamplingParams(…), seeds=…)")

    @property
    def actor_critic(self) -> ActorCritic:
        """Policy and critic."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def policy(self) -> Any:
        return self.actor_critic.policy

    # ---- once per rollout ----------------------------------------------------------------------------------------------

    def look(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        def both(part: TokenBatch) -> Tensor:
            found = self.evaluate_tokens(self.actor_critic, part, entropy=False)
            return torch.stack([found["logps"], found["values"]], dim=-1)

        with torch.no_grad():
            logps, values = in_chunks(both, batch, self.args.local_rollout_forward_batch_size).unbind(-1)
        return logps, values

    def reward_of(self, rollout: Rollout, verdict: RewardResult) -> Tensor:
        """Score minus KL penalty, per token; returns the KL [B, T]."""
        kl = KL_ESTIMATORS[self.args.kl_estimator](rollout.old_logps, rollout.ref_logps) * rollout.loss_mask
        placed, rollout.scores = self.final_scores(rollout, verdict)
        rollout.rewards = placed - self.kl_coef * kl
        return kl

    def final_scores(self, rollout: Rollout, verdict: RewardResult) -> tuple[Tensor, Tensor]:
        """([B, T] rewards for what was said, [B] their sums): per-token rewards where they land, the rest on the last token."""
        args, scores = self.args, verdict.total.to(rollout.old_logps)
        if args.missing_eos_penalty is not None:
            scores = scores - args.missing_eos_penalty * (~rollout.finished)
        scores = scores * args.reward_scale
        if args.reward_clip is not None:
            scores = scores.clamp(-args.reward_clip, args.reward_clip)
        if verdict.per_token is None:
            return place_score(scores, rollout.loss_mask), scores
        tokens = spread(verdict.per_token, rollout) * args.reward_scale
        return tokens + place_score(scores - tokens.sum(1), rollout.loss_mask), scores

    def fill(self, rollout: Rollout, verdict: RewardResult) -> None:
        args, mask = self.args, rollout.loss_mask
        kl = self.reward_of(rollout, verdict)
        if args.whiten_rewards:
            rollout.rewards = whiten(rollout.rewards, mask, shift_mean=False)
        advantages, rollout.returns = gae(
            rollout.rewards, rollout.values, mask, gamma=args.gamma, lam=args.lam
        )
        rollout.advantages = self.collector.weighed(whiten(advantages, mask), rollout, "token")
        self.meter.add(rollout_sums(rollout, kl, self.kl_coef))
        self.adapt_kl(float(kl.sum(1).mean()))

    def adapt_kl(self, kl: float) -> None:
        """Ziegler et al. 2019 (1909.08593), §2.2: the coefficient follows the KL's relative distance from its target."""
        if self.args.kl_target is not None:
            error = min(0.2, max(-0.2, kl / self.args.kl_target - 1))
            self.kl_coef *= 1 + error * self.schedule.rows / self.args.kl_horizon

    # ---- once per micro-batch ------------------------------------------------------------------------------------------

    def evaluate_tokens(self, model: nn.Module, batch: TokenBatch, *, entropy: bool) -> dict[str, Tensor]:
        """{"logps", "values", "entropy"?}, each [B, T]: policy and critic in one pass through the wrapper."""

        def run(ac: Any) -> dict[str, Tensor]:
            found = self.of_policy(ac, batch, entropy=entropy)
            return found if ac.value_model is None else {**found, "values": self.of_critic(ac, batch)}

        with self.accelerator.autocast():
            return inside(model, run)

    def of_policy(self, ac: ActorCritic, batch: TokenBatch, *, entropy: bool) -> dict[str, Tensor]:
        """{"logps", "entropy"?, "values" of a head on the trunk}."""
        head = ac.value_head
        if head is not None and self.critic_only:
            head = Apart(head)
        said = {"temperature": self.args.temperature, "layout": self.args.layout, "entropy": entropy}
        found = score(ac.policy, batch, value_head=head, **said)
        named = {"logps": found.logps, "values": found.values, "entropy": found.entropy}
        return {name: x for name, x in named.items() if x is not None}

    def of_critic(self, ac: ActorCritic, batch: TokenBatch) -> Tensor:
        """[B, T]: the values of a critic of its own."""
        return token_values(ac.value_model, batch, layout=self.args.layout)

    @property
    def critic_only(self) -> bool:
        """Whether this step still warms the critic up: the policy stays as it is, a trunk that it shares too."""
        return self.state.global_step < self.args.value_warmup_steps

    def items(self, batch: Rollout) -> Tensor:
        return batch.loss_mask.sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        # Two models that share no weight need not keep what backward needs of both: the policy's part goes back first.
        apart = model is self.actor_critic and self.actor_critic.value_model is not None
        apart = apart and not sharding_of(model)  # whose weights are gathered around the forward of both
        apart = apart and "lomo" not in str(self.args.optim)  # those step inside backward
        self._divisor = num_items_in_batch if apart and torch.is_grad_enabled() else None
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def loss(self, model: nn.Module, batch: Rollout) -> LossOutput:
        args, mask, divisor = self.args, batch.loss_mask, self._divisor
        self._divisor = None
        if divisor is None:
            new = self.evaluate_tokens(model, batch, entropy=True)
        else:
            with self.accelerator.autocast():
                new = self.of_policy(self.actor_critic, batch, entropy=True)
        surrogate, ratio, clipped = clipped_surrogate(
            new["logps"],
            batch.old_logps,
            batch.advantages,
            cliprange=args.cliprange,
            dual_clip=args.dual_clip,
        )
        policy = surrogate - args.entropy_coef * new["entropy"]
        total = ((0.0 if self.critic_only else 1.0) * policy * mask).sum()
        if divisor is not None:
            self.accelerator.backward(total * self.accelerator.num_processes / divisor)
            total, new = total.detach(), {name: x.detach() for name, x in new.items()}
            with self.accelerator.autocast():
                new["values"] = self.of_critic(self.actor_critic, batch)
        error, bounded = clipped_value(
            new["values"], batch.values, batch.returns, cliprange_value=args.cliprange_value
        )
        total = total + (args.vf_coef * error * mask).sum()
        difference = new["logps"] - batch.old_logps
        metrics = minibatch_sums(
            mask, difference, ratio, new["entropy"], (surrogate, clipped), (error, bounded)
        ) | self.at_start(difference, mask)
        if args.early_stop_kl is not None:  # a GPU would have to wait for it
            self.step_kl += torch.tensor(
                [float(x) for x in metrics["policy/approxkl_avg"]], dtype=torch.float64
            )
        return LossOutput(total, metrics)

    def get_batch_samples(self, *args: Any) -> tuple[list[Any], Tensor]:
        limit, spent = self.args.early_stop_kl, self.step_kl
        self.step_kl = torch.zeros(2, dtype=torch.float64)
        if limit is not None and self.cursor < self.schedule.steps:
            total, tokens = self.sum_over_ranks(spent)
            if float(total) > limit * float(tokens):
                self.cursor = self.schedule.steps
        return super().get_batch_samples(*args)

    # ---- optimizer and checkpoints -------------------------------------------------------------------------------------

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        optimizer, rate = super().create_optimizer(model), self.args.value_learning_rate
        if rate is not None and not any(group.get("critic") for group in optimizer.param_groups):
            critic = {id(p) for p in self.actor_critic.critic_parameters()}
            theirs = []
            for group in optimizer.param_groups:
                theirs.append(
                    {**group, "params": [p for p in group["params"] if id(p) in critic], "lr": rate}
                )
                group["params"] = [p for p in group["params"] if id(p) not in critic]
            optimizer.param_groups += [{**group, "critic": True} for group in theirs]
        return optimizer

    def extra_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, plain = super().extra_state()
        return tensors, {**plain, "ppo": {"kl_coef": self.kl_coef, "step_kl": self.step_kl.tolist()}}

    def load_extra_state(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        super().load_extra_state(tensors, plain)
        self.kl_coef = plain["ppo"]["kl_coef"]
        self.step_kl = torch.tensor(plain["ppo"]["step_kl"], dtype=torch.float64)

    def save_parts(self, folder: Path, state_dict: dict[str, Tensor] | None = None) -> None:
        """The policy as a stock model (or adapter), and the critic in `critic/`."""
        policy, critic = self.actor_critic.split(state_dict)
        self.policy.save_pretrained(str(folder), state_dict=policy)
        self.actor_critic.save_critic(folder / "critic", critic)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with whole(self.actor_critic, writeback=True):
            super()._load_from_checkpoint(resume_from_checkpoint, model=self.policy)
            self.actor_critic.load_critic(Path(resume_from_checkpoint) / "critic")

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)
