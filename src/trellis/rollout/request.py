"""Checks of a sampling request, made before any time is spent on it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..models import learned_positions
from .params import SamplingParams


def check_request(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    *,
    n: int,
    seeds: Sequence[int],
    rows: int | None,
    limits: Sequence[int] | None = None,
) -> None:
    """Raises TypeError or ValueError with what was found and what was expected."""
    if n < 1:
        raise ValueError(f"n must be at least 1 completion per prompt, found {n}")
    if rows is not None and rows < 1:
        raise ValueError(f"rows must be at least 1 (or None: all at once), found {rows}")
    if len(seeds) != len(prompts) * n:
        raise ValueError(
            f"{len(prompts)} prompts × {n} completions need {len(prompts) * n} seeds, found {len(seeds)}"
        )
    if limits is not None and (len(limits) != len(seeds) or min(limits, default=1) < 1):
        raise ValueError(f"limits must be {len(seeds)} numbers of tokens of at least 1, found {list(limits)}")
    _check_model(model)
    _check_tokens(model, prompts)
    _check_room(model, prompts, params)


def _check_model(model: nn.Module) -> None:
    if not hasattr(model, "config") or not hasattr(model, "get_input_embeddings"):
        raise TypeError(f"sampling needs a transformers causal language model, found {type(model).__name__}")
    if getattr(model.config, "is_encoder_decoder", False):
        raise TypeError(
            f"sampling needs a decoder-only model, found the encoder-decoder {type(model).__name__}"
        )


def _check_tokens(model: nn.Module, prompts: Sequence[Sequence[int]]) -> None:
    embeddings = model.get_input_embeddings()  # type: ignore[operator]
    limit = getattr(embeddings, "num_embeddings", None)
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompt {i} has no tokens; start it with the BOS token or some text")
        if limit and not 0 <= min(prompt) <= max(prompt) < limit:
            worst = min(prompt) if min(prompt) < 0 else max(prompt)
            raise ValueError(
                f"prompt {i} holds token id {worst}, the model embeds 0 … {limit - 1}; use the model's own tokenizer, or "
                "model.resize_token_embeddings(len(tokenizer))"
            )


def _check_room(model: nn.Module, prompts: Sequence[Sequence[int]], params: SamplingParams) -> None:
    limit = learned_positions(model)
    longest = max((len(p) for p in prompts), default=0)
    if limit and longest + params.max_new_tokens > limit:
        raise ValueError(
            f"a prompt of {longest} tokens and {params.max_new_tokens} new ones exceed the model's {limit} positions; "
            f"cut prompts to {limit - params.max_new_tokens} tokens or ask for fewer new tokens"
        )
