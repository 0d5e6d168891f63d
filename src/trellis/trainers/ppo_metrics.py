"""What PPO logs: every name with its formula, and the sums it is computed from."""

from __future__ import annotations

import torch
from torch import Tensor

from ..losses.policy import k3
from ..metrics import Metric, deviation, explained_variance, variance
from ..types import Metrics, Rollout

MINIBATCH = [
    Metric("policy/approxkl_avg", "½ mean (log π − log π_old)², over trained tokens"),
    Metric("policy/clipfrac_avg", "share of trained tokens whose ratio is clipped"),
    Metric("policy/entropy_avg", "mean entropy of the policy at trained tokens, in nats"),
    Metric("loss/policy_avg", "mean clipped surrogate loss over trained tokens"),
    Metric("loss/value_avg", "mean clipped value loss over trained tokens"),
    Metric("val/clipfrac_avg", "share of trained tokens whose value is clipped"),
    Metric("val/ratio", "mean π / π_old over trained tokens"),
    Metric("val/ratio_square", "mean (π / π_old)²", hidden=True),
    Metric(
        "val/ratio_var",
        "variance of π / π_old over trained tokens",
        derive=variance("val/ratio", "val/ratio_square"),
    ),
]
ROLLOUT = [
    Metric("objective/kl", "mean over responses of Σ_t kl_t, by kl_estimator", hold=True),
    Metric("objective/kl_k3", "mean over responses of Σ_t k3_t: never negative", hold=True),
    Metric("objective/kl_coef", "weight of the KL penalty", hold=True),
    Metric("objective/entropy", "mean over responses of Σ_t −log π_old", hold=True),
    Metric("objective/non_score_reward", "mean over responses of −kl_coef · Σ_t kl_t", hold=True),
    Metric("objective/scores", "mean score after missing_eos_penalty, scaling and clipping", hold=True),
    Metric("objective/scores_square", "mean score²", hold=True, hidden=True),
    Metric(
        "objective/scores_std",
        "standard deviation of the scores of a rollout",
        derive=deviation("objective/scores", "objective/scores_square"),
    ),
    Metric("objective/rlhf_reward", "objective/scores + objective/non_score_reward", hold=True),
    Metric("val/num_eos_tokens", "responses of a rollout that ended with a stop token", hold=True),
    Metric("val/error", "mean return − value", hold=True, hidden=True),
    Metric("val/error_square", "mean (return − value)²", hold=True, hidden=True),
    Metric("val/return", "mean return over trained tokens", hold=True),
    Metric("val/return_square", "mean return²", hold=True, hidden=True),
    Metric(
        "val/explained_variance",
        "1 − Var[return − value] / Var[return]",
        derive=explained_variance("val/error", "val/error_square", "val/return", "val/return_square"),
    ),
    Metric("response/length", "mean tokens per response", hold=True),
    Metric("response/truncated", "share of responses without a stop token", hold=True),
]
LOOP = [
    Metric("eps", "episodes (completions) per second since train() began"),
    Metric("episode", "completions sampled so far, over all ranks"),
    Metric("lr", "learning rate of the policy"),
]
"""Logged by the loop itself, not metered."""


def rollout_sums(rollout: Rollout, kl: Tensor, kl_coef: float) -> Metrics:
    """(sum, count) of every ROLLOUT metric; `kl` [B, T] by the chosen estimator."""
    mask, rows, tokens = rollout.loss_mask, float(len(rollout)), rollout.loss_mask.sum()
    error = (rollout.returns - rollout.values) * mask
    penalty = -kl_coef * kl.sum()
    return {
        "objective/kl": (kl.sum(), rows),
        "objective/kl_k3": ((k3(rollout.old_logps, rollout.ref_logps) * mask).sum(), rows),
        "objective/kl_coef": (torch.tensor(kl_coef, dtype=torch.float64), 1.0),
        "objective/entropy": (-rollout.old_logps.sum(), rows),
        "objective/non_score_reward": (penalty, rows),
        "objective/scores": (rollout.scores.double().sum(), rows),
        "objective/scores_square": ((rollout.scores.double() ** 2).sum(), rows),
        "objective/rlhf_reward": (rollout.scores.sum() + penalty, rows),
        "val/num_eos_tokens": (rollout.finished.sum(), 1.0),
        "val/error": (error.sum(), tokens),
        "val/error_square": ((error**2).sum(), tokens),
        "val/return": (rollout.returns.sum(), tokens),
        "val/return_square": ((rollout.returns**2).sum(), tokens),
        "response/length": (tokens, rows),
        "response/truncated": ((~rollout.finished).sum(), rows),
    }


def minibatch_sums(
    mask: Tensor,
    difference: Tensor,
    ratio: Tensor,
    entropy: Tensor,
    policy: tuple[Tensor, Tensor],
    value: tuple[Tensor, Tensor],
) -> Metrics:
    """(sum, count) of every MINIBATCH metric. `difference` = log π − log π_old; `policy`, `value`: (loss, clipped)."""
    found = {
        "policy/approxkl_avg": 0.5 * difference**2,
        "policy/clipfrac_avg": policy[1],
        "policy/entropy_avg": entropy,
        "loss/policy_avg": policy[0],
        "loss/value_avg": value[0],
        "val/clipfrac_avg": value[1],
        "val/ratio": ratio,
        "val/ratio_square": ratio**2,
    }
    tokens = mask.sum()
    return {name: ((x.detach() * mask).sum(), tokens) for name, x in found.items()}
