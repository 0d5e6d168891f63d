"""score(), sequence_scores(), token_values(): what models say about a TokenBatch, aligned to `[B, T]` whatever the layout."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..models import base_causal_lm
from ..types import Scores, TokenBatch
from .counters import count, one_batch
from .head import Transform, head_scores, wide
from .inside import Named, inside
from .layout import Arranged
from .plan import Plan, plan_for, transform_of, trunk_states


def score(
    model: nn.Module,
    batch: TokenBatch,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    hits: bool = False,
    value_head: nn.Module | None = None,
    layout: str = "auto",
) -> Scores:
    """What a causal language model says about the masked-in tokens of a batch (see `types.Scores`).

    Only hidden states that predict such a token reach the vocabulary, a chunk at a time; `value_head` ([*, H] → [*, 1]) reads the
    same states. Differentiable where gradients are on. `temperature` divides the logits and must be positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, found {temperature}")

    def run(module: nn.Module) -> Named:
        return planned(module, batch, plan_for(module, layout), temperature, entropy, hits, value_head)

    return Scores(**inside(model, run))


def _place(values: Tensor, arranged: Arranged, batch: TokenBatch) -> Tensor:
    """[B, T] with `values` [P] at the tokens they speak about and 0 elsewhere; float32, or float64 where `values` are."""
    values = wide(values)
    return (
        values.new_zeros(batch.input_ids.numel())
        .index_put((arranged.place,), values)
        .view(batch.input_ids.shape)
    )


def _values(head: nn.Module, states: Tensor) -> Tensor:
    """[P]: a value head's estimates, in the head's own precision (a bfloat16 policy's is too coarse for a critic)."""
    with torch.autocast(states.device.type, enabled=False):
        return head(states.to(next(head.parameters()).dtype)).squeeze(-1)


def planned(
    model: nn.Module,
    batch: TokenBatch,
    plan: Plan,
    temperature: float = 1.0,
    entropy: bool = False,
    hits: bool = False,
    value_head: nn.Module | None = None,
) -> Named:
    """The tensors of `Scores` for a batch, by a plan; inside the forward call of what wraps the model."""
    if not plan.fused:
        return _whole(model, batch, plan, temperature, entropy, hits, value_head)
    return laid_out(model, batch, plan.arrange(batch), temperature, entropy, hits, value_head)


def laid_out(
    model: nn.Module,
    batch: TokenBatch,
    arranged: Arranged,
    temperature: float = 1.0,
    entropy: bool = False,
    hits: bool = False,
    value_head: nn.Module | None = None,
) -> Named:
    """The same for a batch that is arranged already, by trunk and head."""
    lm = base_causal_lm(model)
    states = trunk_states(model, arranged, arranged.flat)
    count(lm, batch, arranged.tokens, len(states))
    targets = batch.input_ids.flatten()[arranged.place]
    transform = transform_of(lm.config, temperature)
    found = inside(
        lm.get_output_embeddings(),
        lambda head: head_scores(head, states, targets, transform, entropy=entropy, hits=hits),
    )
    if value_head is not None:
        found["values"] = _values(value_head, states)
    return {name: _place(values, arranged, batch) for name, values in found.items()}


def _whole(
    model: nn.Module,
    batch: TokenBatch,
    plan: Plan,
    temperature: float,
    entropy: bool,
    hits: bool,
    value_head: nn.Module | None,
) -> Named:
    """The slow path: the model's own logits, for architectures whose logits are more than trunk and head."""
    arranged = plan.arrange(batch)
    wants_states = value_head is not None
    out = model(**arranged.inputs, use_cache=False, output_hidden_states=wants_states)
    count(base_causal_lm(model), batch, arranged.tokens, arranged.tokens)
    logits = out.logits.flatten(0, 1)[arranged.flat]
    targets = batch.input_ids.flatten()[arranged.place]
    found = head_scores(
        _Ready(), logits, targets, Transform(temperature=temperature), entropy=entropy, hits=hits
    )
    if value_head is not None:
        found["values"] = _values(value_head, out.hidden_states[-1].flatten(0, 1)[arranged.flat])
    placed = {name: _place(values, arranged, batch) for name, values in found.items()}
    aux = getattr(out, "aux_loss", None)
    return placed if aux is None else {**placed, "aux_loss": aux}


class _Ready(nn.Module):
    """A head for logits that exist already."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits.clone()


def token_values(model: nn.Module, batch: TokenBatch, *, layout: str = "auto") -> Tensor:
    """[B, T]: a classifier's scalar head at the state in which each masked-in token was chosen (the token before it)."""

    def run(module: nn.Module) -> Named:
        arranged = plan_for(module, layout).arrange(batch)
        states = trunk_states(module, arranged, arranged.flat)
        count(base_causal_lm(module), batch, arranged.tokens)
        return {"values": _place(base_causal_lm(module).score(states).squeeze(-1), arranged, batch)}

    return inside(model, run)["values"]


def sequence_scores(model: nn.Module, batch: TokenBatch, *, layout: str = "auto") -> Tensor:
    """[B] float32: a sequence classifier's scalar verdict on each row, read at its last real token (by mask, never by pad id).

    Classifiers without a `score` head on a causal trunk (encoders) are called as they are and must give one logit.
    """

    def run(module: nn.Module) -> Named:
        classifier = base_causal_lm(module)
        if getattr(classifier, "score", None) is None:
            count(classifier, batch, batch.input_ids.numel())
            logits = module(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()).logits
            return {"scores": wide(logits).reshape(len(batch), -1)[:, 0]}
        arranged = plan_for(module, layout).arrange(batch)
        count(classifier, batch, arranged.tokens)
        return {"scores": wide(classifier.score(trunk_states(module, arranged, arranged.last))).squeeze(-1)}

    return inside(model, run)["scores"]


def in_chunks(fn: Callable[[TokenBatch], Tensor], batch: TokenBatch, rows: int) -> Tensor:
    """`fn` over at most `rows` rows at a time, its results (first dimension: rows) put together again."""
    starts = range(0, len(batch), max(1, rows))
    with one_batch():
        return torch.cat([fn(batch.slice(start, start + max(1, rows))) for start in starts])
