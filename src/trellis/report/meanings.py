"""What a logged name means: the trainer's own formulas, and words for what the loop below logs."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from typing import Any

TRAINERS = ("SFT", "Reward", "DPO", "KTO", "ORPO", "CPO", "PPO", "RLOO", "GRPO")
LOOP = {
    "loss": "mean loss per item since the last log",
    "grad_norm": "length of the gradient before clipping",
    "learning_rate": "step size of the optimizer",
    "lr": "step size of the optimizer",
    "eps": "episodes per second",
    "eval_loss": "Σ loss / Σ items over the evaluation set",
    "eval_win_rate": "share of held-out prompts on which a judge prefers the policy's answer to its reference's, ties as halves",
    "eval_win_rate_low": "lower end of the win rate's 95% interval",
    "eval_win_rate_high": "upper end of the win rate's 95% interval",
    "eval_win_rate_length_controlled": "the win rate at equal lengths of the answers",
    "eval_avg_win_prob": "mean probability, by a soft judge, that the policy's answer is the better one",
    "num_tokens": "tokens trained on so far",
}
PATTERNS = {
    r"rewards/(.+)/mean": "mean of the reward {0}, over the completions that it applies to",
    r"rewards/(.+)/std": "standard deviation of the reward {0}",
    r"rewards/(.+)/failed": "share of completions on which {0} failed",
    r"profile/time/(.+)": "share of the time: {0}",
    r"profile/(.+)": "{0}, per optimizer step",
    r"(?:eval_)?runtime": "seconds",
    r".*_per_second": "speed of this machine",
}
ORDER = (
    "loss",
    "eval_loss",
    "objective/scores",
    "objective/rlhf_reward",
    "objective/kl",
    "objective/entropy",
    "objective/",
    "reward",
    "rewards/",
    "accuracy",
    "mean_token_accuracy",
    "kl",
    "entropy",
    "completions/",
    "policy/",
    "val/",
)


class Meanings:
    """Meanings for the metrics of the trainers named (class names; of all trainers for a name that is none of ours)."""

    def __init__(self, trainers: Iterable[str]) -> None:
        ours = [f"{trainer}Trainer" for trainer in TRAINERS]
        asked = [trainer for trainer in dict.fromkeys(trainers) if trainer in ours] or ours
        self.formulas = {metric.name: metric.formula for name in reversed(asked) for metric in _metrics(name)}

    def of(self, name: str) -> str:
        """The meaning of a logged name; "" where nobody has said one."""
        if said := self.formulas.get(name) or LOOP.get(name):
            return said
        if name.startswith("eval_") and (said := self.of(name.removeprefix("eval_"))):
            return f"on the evaluation set: {said}"
        for pattern, words in PATTERNS.items():
            if found := re.fullmatch(pattern, name):
                return words.format(*(part.replace("_", " ") for part in found.groups()))
        return ""


def _metrics(trainer: str) -> Any:
    return getattr(importlib.import_module("..", __package__), trainer).metrics


def in_order(names: Iterable[str]) -> list[str]:
    """The names, those that one looks at first in front."""

    def rank(name: str) -> int:
        firsts = [
            i
            for i, start in enumerate(ORDER)
            if name == start or (start[-1] == "/" and name.startswith(start))
        ]
        return firsts[0] if firsts else len(ORDER) + name.startswith("profile/")

    return sorted(names, key=rank)
