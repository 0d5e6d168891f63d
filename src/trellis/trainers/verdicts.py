"""Plain words about a run that learns nothing from its rewards: one warning, after a few rollouts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..advantages import group_statistics
from ..rewards import RewardResult
from ..types import Rollout

PATIENCE = 4
"""Rollouts in a row without a signal before it is said."""


@dataclass(frozen=True)
class Silence:
    """The rollouts since rewards last told completions of one prompt apart: their number and that of their completions, how many
    of these were cut off, the lowest and highest reward."""

    rollouts: int = 0
    completions: int = 0
    cut: int = 0
    low: float = math.inf
    high: float = -math.inf


def told_apart(rewards: Tensor, group: Tensor, trained: Tensor) -> bool:
    """Whether any of the F rewards [B, F], NaN where one does not apply, differs within a group [B] of which a row is `trained`
    [B] on."""
    return any(
        bool((trained & (group_statistics(column, group)[1] > 1e-8)).any()) for column in rewards.unbind(1)
    )


def listen(
    before: Silence, rewards: Tensor, group: Tensor, finished: Tensor, *, finished_only: bool = False
) -> Silence:
    """The silence after one more rollout: none where rewards [B, F] tell rows of a group [B] apart. `finished_only`: rows that
    are not `finished` [B] are not trained on."""
    if told_apart(rewards, group, finished if finished_only else torch.ones_like(finished)):
        return Silence()
    known = rewards[~rewards.isnan()].tolist()
    return Silence(
        before.rollouts + 1,
        before.completions + len(group),
        before.cut + int((~finished).sum()),
        min([before.low, *known]),
        max([before.high, *known]),
    )


def verdict_on(silence: Silence, args: Any, rewards: list[str]) -> str:
    """What was found, what was expected and what to type; `args`: the trainer's config, `rewards`: names of its functions."""
    found, several = f"{silence.completions} completions", " and ".join(map(repr, rewards))
    start = f"for {silence.rollouts} rollouts in a row"
    limit, all_cut = args.max_completion_length, silence.cut == silence.completions
    raised = f"write a larger max_completion_length (now {limit})"
    if all_cut and args.mask_truncated_completions:
        return (
            f"every completion was cut off {start} ({found}), and mask_truncated_completions=True leaves such ones out: nothing "
            f"is learned. {raised.capitalize()}"
        )
    if silence.low > silence.high:
        return (
            f"no reward applied to any completion {start} ({found}): nothing is learned from rewards. Expected a number for at "
            f"least two completions of a prompt; look at where {several} returns None"
        )
    earned = ""
    more = f"num_generations={2 * args.num_generations}"
    advice = f"give credit for a part, take prompts that are solved sometimes, or write {more}"
    if silence.low == silence.high:
        earned = f", each {silence.low:g}"
        clip = getattr(args, "reward_clip_range", None)
        clipped = "" if clip is None else f", clipped to reward_clip_range={clip}"
        advice = f"log_completions=True shows what {several} returns{clipped}, beside each completion"
    cut = f"; all of them were cut off: {raised}" if all_cut else ""
    return (
        f"all completions of every prompt earned the same reward {start} ({found}{earned}): nothing is learned from rewards. "
        f"Expected rewards that differ between the completions of a prompt: {advice}{cut}"
    )


def warn_of_silence(
    trainer: Any, before: Silence, rollout: Rollout, verdict: RewardResult, group: Tensor
) -> Silence:
    """Take in a judged rollout of a GroupTrainer, and tell its health when `PATIENCE` of them in a row had no signal."""
    args = trainer.args
    if trainer.rollout_index == 0:  # a run begins
        before = Silence()
    apart = getattr(args, "multi_objective_aggregation", None) == "normalize_then_sum"
    applies = verdict.applicable.to(rollout.scores.device)
    total = torch.where(applies, rollout.scores, torch.nan)[:, None]
    rewards = verdict.per_function.to(total.device) if apart else total
    silence = listen(before, rewards, group, rollout.finished, finished_only=args.mask_truncated_completions)
    found = None
    if silence.rollouts >= PATIENCE:
        found = verdict_on(silence, args, trainer.collector.means.rewards.names)
    trainer.health.tell("rewards-all-equal", found)
    return silence
