"""One token per row from logits: filters, and inverse-CDF sampling with one uniform number per row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .params import SamplingParams


@dataclass
class Drawn:
    """tokens [R] int64; logps, sampler_logps [R] float32 (see `Completion`); valid [R] bool: the logits were usable."""

    tokens: Tensor
    logps: Tensor
    sampler_logps: Tensor
    valid: Tensor


def filtered(logits: Tensor, params: SamplingParams) -> Tensor:
    """[R, V] float32 logits at the temperature, −inf where top-k, top-p or min-p leave a token out.

    top-p (Holtzman et al. 2020, 1904.09751): the fewest tokens whose probabilities reach p; min-p (Nguyen et al. 2024,
    2407.01082): tokens at least min_p times as likely as the likeliest. Each filter sees what the one before it left.
    """
    logits = logits.float() / params.temperature
    if params.top_k:
        kth = logits.topk(min(params.top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if params.top_p < 1:
        ascending, order = logits.sort(dim=-1)
        out = ascending.softmax(-1).cumsum(-1) <= 1 - params.top_p
        out[:, -1] = False
        logits = logits.masked_fill(torch.zeros_like(out).scatter(1, order, out), -torch.inf)
    if params.min_p > 0:
        probs = logits.softmax(-1)
        logits = logits.masked_fill(probs < params.min_p * probs.amax(-1, keepdim=True), -torch.inf)
    return logits


def inverse_cdf(probs: Tensor, uniforms: Tensor) -> Tensor:
    """[R] int64: the first token whose cumulative probability exceeds `uniforms` [R] float64 in [0, 1) times the whole."""
    # float64, because float32 sums of a large vocabulary lose the rare tokens at the far end.
    cumulative = probs.cumsum(-1, dtype=torch.float64)
    picked = torch.searchsorted(cumulative, (uniforms * cumulative[:, -1])[:, None], right=True)
    return picked[:, 0].clamp(max=probs.shape[-1] - 1)


def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """[R, V]: logits of the tokens `seen` [R, V] bool divided by `penalty` where positive, else multiplied (Keskar et al. 2019,
    1909.05858, §4.1, as transformers does it)."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def draw(logits: Tensor, params: SamplingParams, uniforms: Tensor, seen: Tensor | None = None) -> Drawn:
    """The next token of each row of `logits` [R, V], decided by `uniforms` [R] alone; `seen` [R, V] bool: see `penalised`."""
    # One NaN or +inf among a row's logits makes all of its log-probabilities NaN, the drawn one's too.
    full = (logits.float() / params.temperature).log_softmax(-1)
    if seen is not None:
        logits = penalised(logits.float(), seen, params.repetition_penalty)
    if params.greedy:
        tokens = logits.argmax(-1)
        logps = full.gather(1, tokens[:, None])[:, 0]
        sampler_logps = torch.zeros_like(logps)
    else:
        chosen = filtered(logits, params).log_softmax(-1) if params.filters else full
        tokens = inverse_cdf(chosen.exp(), uniforms)
        logps = full.gather(1, tokens[:, None])[:, 0]
        sampler_logps = chosen.gather(1, tokens[:, None])[:, 0]
    return Drawn(tokens, logps, sampler_logps, ~logps.isnan())
