"""What DPO logs, each with its formula."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..metrics import Metric
from ..models.sharded import mean_row
from ..types import Metrics, Pair, PairBatch, Scores

METRICS = [
    Metric("rewards/chosen", "Σ β (log π(y_c) − log π_ref(y_c)) / P over P pairs"),
    Metric("rewards/rejected", "Σ β (log π(y_r) − log π_ref(y_r)) / P"),
    Metric("rewards/accuracies", "Σ [reward of y_c > reward of y_r] / P"),
    Metric("rewards/margins", "Σ (reward of y_c − reward of y_r) / P"),
    Metric("logps/chosen", "Σ log π(y_c) / P, summed over the answer's tokens"),
    Metric("logps/rejected", "Σ log π(y_r) / P, summed over the answer's tokens"),
    Metric("logits/chosen", "Σ_t mean_v z_t,v / tokens of chosen answers; z: what the output layer gives"),
    Metric("logits/rejected", "Σ_t mean_v z_t,v / tokens of rejected answers"),
    Metric("nll_loss", "Σ −log p_t / tokens of chosen answers (with rpo_alpha or loss_type sft)"),
    Metric("entropy", "Σ H(p_t) / tokens of both answers, in nats"),
    Metric("mean_token_accuracy", "Σ [argmax p_t = token t] / tokens of chosen answers"),
    Metric("num_tokens", "tokens seen in training on all ranks since the first step, prompts included"),
    Metric("aux_loss", "mean load-balancing loss of a mixture-of-experts model, per micro-batch"),
]


@torch.no_grad()
def mean_logit(model: Any) -> nn.Module:
    """[*, H] → [*, 1]: the mean over the vocabulary of an output layer's logits, which is one row of weights."""
    head = model.get_output_embeddings()
    weight, bias = mean_row(head.weight), getattr(head, "bias", None)
    mean = nn.Linear(weight.shape[1], 1, bias=bias is not None, device=weight.device, dtype=weight.dtype)
    mean.weight.copy_(weight)
    if bias is not None:
        mean.bias.copy_(mean_row(bias))
    return mean.requires_grad_(False)


@torch.no_grad()
def pair_metrics(batch: PairBatch, pair: Pair, scores: Scores, beta: float) -> Metrics:
    """(sum, count) of each of `METRICS` that one batch adds to."""
    count, reward_c, reward_r = len(batch), beta * pair.chosen, beta * pair.rejected
    chosen, rejected = pair.chosen_length.sum(), pair.rejected_length.sum()
    logps, logits = scores.logps.sum(1).chunk(2), scores.values.sum(1).chunk(2)  # type: ignore[union-attr]
    entropy, hits = scores.entropy, scores.hits
    return {
        "rewards/chosen": (reward_c.sum(), count),
        "rewards/rejected": (reward_r.sum(), count),
        "rewards/accuracies": ((reward_c > reward_r).sum(), count),
        "rewards/margins": ((reward_c - reward_r).sum(), count),
        "logps/chosen": (logps[0].sum(), count),
        "logps/rejected": (logps[1].sum(), count),
        "logits/chosen": (logits[0].sum(), chosen),
        "logits/rejected": (logits[1].sum(), rejected),
        "nll_loss": (-logps[0].sum(), chosen),
        "entropy": (entropy.sum(), chosen + rejected),  # type: ignore[union-attr]
        "mean_token_accuracy": (hits[:count].sum(), chosen),  # type: ignore[index]
    }
