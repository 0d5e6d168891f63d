"""What GRPO and RLOO log: every name with its formula, and the sums it is computed from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..metrics import Metric
from ..types import Metrics, Rollout

STEP = [
    Metric("entropy", "mean entropy of the policy at trained tokens, in nats"),
    Metric("clip_ratio/low_mean", "share of trained ratios that are clipped from below, advantage negative"),
    Metric("clip_ratio/high_mean", "share of trained ratios that are clipped from above, advantage positive"),
    Metric("clip_ratio/region_mean", "clip_ratio/low_mean + clip_ratio/high_mean"),
    Metric("clip_ratio/low_min", "smallest such share from below in a completion, per optimizer step"),
    Metric("clip_ratio/high_max", "largest such share from above in a completion, per optimizer step"),
]
ROLLOUT = [
    Metric("reward", "mean of Σ_f weight_f · reward_f over completions that a reward applies to", hold=True),
    Metric("reward_std", "mean over prompts of its standard deviation among their completions", hold=True),
    Metric(
        "frac_reward_zero_std", "share of prompts whose completions all earn the same: no signal", hold=True
    ),
    Metric("completions/mean_length", "mean tokens per completion", hold=True),
    Metric("completions/min_length", "fewest tokens of a completion", hold=True),
    Metric("completions/max_length", "most tokens of a completion", hold=True),
    Metric(
        "completions/mean_terminated_length", "mean tokens of completions that ended by themselves", hold=True
    ),
    Metric("completions/min_terminated_length", "fewest tokens of one that ended", hold=True),
    Metric("completions/max_terminated_length", "most tokens of one that ended", hold=True),
    Metric("completions/clipped_ratio", "share of completions without a stop token", hold=True),
]
CORRECTION = [
    Metric("sampling/sampling_logp_difference/mean", "mean |log π scored − log π of the engine|", hold=True),
    Metric("sampling/sampling_logp_difference/max", "largest of them in a rollout", hold=True),
    Metric("sampling/importance_sampling_ratio/min", "smallest weight of a rollout", hold=True),
    Metric("sampling/importance_sampling_ratio/mean", "mean weight over trained tokens", hold=True),
    Metric("sampling/importance_sampling_ratio/max", "largest weight of a rollout", hold=True),
]
LOOP = [
    Metric("num_tokens", "prompt and completion tokens sampled or read so far, over all ranks"),
    Metric("step_time", "seconds per optimizer step since the last log, sampling included"),
]
"""Logged by the loop itself, not metered."""


def length_sums(rollout: Rollout) -> Metrics:
    """(sum, count) of the lengths, with what tools said counted in."""
    lengths = (rollout.lengths - rollout.prompt_len).float()
    ended = lengths[rollout.finished]
    found: Metrics = {"completions/clipped_ratio": ((~rollout.finished).sum(), float(len(rollout)))}
    for kind, values in (("", lengths), ("terminated_", ended)):
        if len(values):
            found[f"completions/mean_{kind}length"] = (values.sum(), float(len(values)))
            found[f"completions/min_{kind}length"] = (values.min(), 1.0)
            found[f"completions/max_{kind}length"] = (values.max(), 1.0)
    return found


def reward_sums(total: Tensor, std: Tensor, applies: Tensor) -> Metrics:
    """(sum, count) of the rewards: `total` [B], the standard deviation `std` [B] of each row's group, `applies` [B]."""
    rows = float(applies.sum())
    alike = (std <= 1e-8) & applies
    return {
        "reward": (total[applies].double().sum(), rows),
        "reward_std": (std[applies].double().sum(), rows),
        "frac_reward_zero_std": (alike.sum(), rows),
    }


def correction_sums(difference: Tensor, weights: Tensor, mask: Tensor) -> Metrics:
    """(sum, count) of how far the engine's log-probabilities [B, T] are off, and of the weights that make up for it."""
    if not bool(mask.any()):
        return {}
    tokens, off, used = mask.sum(), difference.abs()[mask], weights[mask]
    prefix = "sampling/importance_sampling_ratio"
    return {
        "sampling/sampling_logp_difference/mean": (off.double().sum(), tokens),
        "sampling/sampling_logp_difference/max": (off.max(), 1.0),
        f"{prefix}/min": (used.min(), 1.0),
        f"{prefix}/mean": (used.double().sum(), tokens),
        f"{prefix}/max": (used.max(), 1.0),
    }


def clip_sums(low: Tensor, high: Tensor, mask: Tensor) -> Metrics:
    """(sum, count) of the shares of clipped ratios; all [B, T]."""
    tokens = mask.sum()
    below, above = (low * mask).sum(), (high * mask).sum()
    return {
        "clip_ratio/low_mean": (below, tokens),
        "clip_ratio/high_mean": (above, tokens),
        "clip_ratio/region_mean": (below + above, tokens),
    }


class Extremes:
    """The smallest and largest share of clipped ratios among the completions of an optimizer step, whatever its micro-batches."""

    def __init__(self) -> None:
        self.low = self.high = None  # type: Tensor | None

    def note(self, low: Tensor, high: Tensor, mask: Tensor) -> None:
        """One micro-batch; all [B, T]."""
        tokens = mask.sum(1)
        if not len(tokens):
            return
        trained, count = tokens > 0, tokens.clamp(min=1)
        below = torch.where(
            trained, (low * mask).sum(1) / count, torch.full_like(count, 2, dtype=low.dtype)
        ).min()
        above = ((high * mask).sum(1) / count).max()
        self.low = below if self.low is None else torch.minimum(self.low, below)
        self.high = above if self.high is None else torch.maximum(self.high, above)

    def settle(self, gather: Callable[[Tensor], Tensor]) -> Metrics:
        """(sum, count) of the step that is over, and forget it; `gather` brings a tensor of every rank together, end to end."""
        if self.low is None or self.high is None:
            return {}
        found = gather(torch.stack([self.low, -self.high])).view(-1, 2)
        self.low = self.high = None
        low, high = found.min(0).values
        trained = (low <= 1).double()  # 2 where no rank had a trained token
        return {
            "clip_ratio/low_min": (low * trained, trained),
            "clip_ratio/high_max": (-high * trained, trained),
        }
