"""The named diagnoses of a run: what each reads, when it fires, what to do. `docs/health.md` is written from this table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import health_signs as signs
from .health_signs import Stream
from .health_statistics import SURE

ONLINE, PAIRS = ("ppo", "grpo", "rloo"), ("reward", "dpo", "orpo", "cpo")


@dataclass(frozen=True)
class Rule:
    """A diagnosis. `methods`: the trainers it knows; `reads`: metrics; `when`: its threshold and guard, in words; `finds`: what
    it found in a stream, or None (no function: the trainer itself sees it, see `Health.tell`)."""

    name: str
    methods: tuple[str, ...]
    reads: tuple[str, ...]
    when: str
    advice: str
    finds: Callable[[Stream], str | None] | None = None


RULES = (
    Rule(
        "kl-blow-up",
        ONLINE,
        ("objective/kl", "kl"),
        "more than 1 nat per token and 10 per completion, in each of 4 rollouts",
        "lower learning_rate, raise kl_coef (PPO) or beta (GRPO, RLOO), and look at samples: the reward may be fooled",
        signs.kl_blow_up,
    ),
    Rule(
        "kl-negative",
        ("ppo", "rloo"),
        ("objective/kl", "kl"),
        f"mean of 20 rollouts below −0.05 and {SURE:g} standard errors below 0",
        "samples are not of the policy that is scored: leave top_k, top_p and min_p out, or look at the engine",
        signs.kl_negative,
    ),
    Rule(
        "entropy-collapse",
        ONLINE,
        ("policy/entropy_avg", "entropy"),
        "below 0.1 nats and a tenth of the first 3 points' median, in each of 5",
        "where rewards are not what you want yet: lower learning_rate, raise entropy_coef or the KL penalty, or take more varied "
        "prompts; else stop here",
        signs.entropy_collapse,
    ),
    Rule(
        "ratio-not-one",
        ONLINE,
        ("ratio/off_at_start",),
        "mean |log π − log π_old| of the first step on a rollout above 0.05, in each of 3 rollouts",
        "old and new log-probabilities are computed differently: write disable_dropout=True, or look at the engine",
        signs.ratio_not_one,
    ),
    Rule(
        "clip-fraction",
        ONLINE,
        ("policy/clipfrac_avg", "clip_ratio/region_mean"),
        "above 0.4 in each of 5 points",
        "lower learning_rate, take fewer passes over a rollout (num_ppo_epochs, num_iterations) or larger minibatches",
        signs.clip_fraction,
    ),
    Rule(
        "value-explained-variance",
        ("ppo",),
        ("val/explained_variance",),
        f"after 10 rollouts: mean of 20 at most 0 and {SURE:g} standard errors below 0.05",
        "warm the critic up (value_warmup_steps), try another value_learning_rate, or start it from the reward model",
        signs.critic_useless,
    ),
    Rule(
        "rewards-all-equal",
        ONLINE,
        ("objective/scores_std", "frac_reward_zero_std"),
        "4 rollouts in a row in which no two completions (of a prompt, in GRPO and RLOO) earned different rewards",
        "look at what the reward returns for these completions; take prompts that are solved sometimes",
        signs.rewards_equal,
    ),
    Rule(
        "reward-by-length",
        ONLINE,
        ("objective/scores", "reward", "response/length", "completions/mean_length"),
        f"over 30 rollouts reward and length both move, the reward up ({SURE:g} sd); with the length held fixed the reward "
        f"does not rise (below 2 sd), with time held fixed it goes with the length ({SURE:g} sd)",
        "read samples; take length out of the reward, or weigh in a penalty for it",
        signs.reward_by_length,
    ),
    Rule(
        "margins-negative",
        (*PAIRS, "kto"),
        ("rewards/margins", "margin"),
        f"mean of 20 logs {SURE:g} standard errors below 0, and not rising (2 sd)",
        "look whether chosen and rejected are swapped, whether ref_model is the model that training starts from, and lower "
        "learning_rate",
        signs.margins_negative,
    ),
    Rule(
        "accuracy-at-chance",
        PAIRS,
        ("rewards/accuracies", "accuracy"),
        "after 5 logs, over 20 logs with 1,000 pairs or more: not 2 sd above 0.5, and 3 sd below 0.6 (binomial), and not rising",
        "raise learning_rate, or look at the labels: `trellis check` finds equal and contradicting pairs",
        signs.accuracy_at_chance,
    ),
    Rule(
        "loss-stuck",
        ("sft", *PAIRS, "kto"),
        ("loss", "learning_rate"),
        "8 logs in a row within a ten-thousandth of each other, the learning rate not warming up",
        "look whether any weight is trained (learning_rate, frozen parameters), whether answers differ, and whether anything is "
        "left of them after truncation",
        signs.loss_stuck,
    ),
    Rule(
        "dead-lora",
        ("sft", *PAIRS, "kto", *ONLINE),
        ("gradients of the first step",),
        "adapted modules without a gradient in the first step that moves others; where all have none, the run is refused",
        "leave modules that the forward pass does not use out of target_modules",
    ),
    Rule(
        "eos-share-falling",
        ONLINE,
        ("response/truncated", "completions/clipped_ratio"),
        f"the last 10 rollouts end 0.2 less often than the first 10, by {SURE:g} standard errors (Welch)",
        "write missing_eos_penalty (PPO) or a reward for ending, or raise the completions' length limit",
        signs.eos_falling,
    ),
    Rule(
        "truncation",
        ONLINE,
        ("response/truncated", "completions/clipped_ratio"),
        f"mean of 10 rollouts {SURE:g} standard errors above 0.5",
        "raise the completions' length limit (response_length, max_completion_length), or look whether the model knows its end "
        "token",
        signs.truncation,
    ),
)
NAMES = tuple(rule.name for rule in RULES)


def check_names(option: str, names: Sequence[str] | None) -> None:
    """Raises ValueError where `names` holds one that is no rule's."""
    unknown = [name for name in names or () if name not in NAMES]
    if unknown:
        raise ValueError(
            f"{option} names {', '.join(map(repr, unknown))}; expected names of health rules: {', '.join(NAMES)}"
        )
