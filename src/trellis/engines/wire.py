"""What trainer and server say to each other about sampling, and what an answer must be before it is believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from ..models import base_causal_lm
from ..rollout import Completion, SamplingParams

PROTOCOL = 1
KEY_ENV = "TRELLIS_VLLM_KEY"
"""The environment variable that holds the key of `trellis vllm-serve`, on both sides."""
SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")


def shape_of(config: Any) -> dict[str, Any]:
    """What two models must share for the weights of one to fit into the other."""
    text = config.get_text_config()
    return {name: getattr(text, name, None) for name in SHAPE}


def config_of(model: nn.Module) -> Any:
    """The configuration of the transformers model inside wrappers and adapters."""
    return base_causal_lm(model).config


def request(
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    *,
    n: int,
    seeds: Sequence[int],
    regex: str | None = None,
) -> dict[str, Any]:
    """The body of a `generate` request: `n` completions of each prompt, a seed for each completion."""
    if n < 1 or len(seeds) != len(prompts) * n:
        raise ValueError(
            f"{len(prompts)} prompts × {n} completions need n ≥ 1 and as many seeds, found {len(seeds)}"
        )
    return {
        "prompts": [[int(token) for token in prompt] for prompt in prompts],
        "n": n,
        "seeds": [int(seed) for seed in seeds],
        "max_tokens": params.max_new_tokens,
        "temperature": 0.0 if params.greedy else params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "min_p": params.min_p,
        "repetition_penalty": params.repetition_penalty,
        "stop_token_ids": sorted(params.stop_ids),
        "structured_outputs_regex": regex,
    }


def check_prompts(
    prompts: Sequence[Sequence[int]], params: SamplingParams, *, vocabulary: int, room: int | None
) -> None:
    """Raises ValueError for prompts that the engine's model cannot read, or has no `room` to answer."""
    for row, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompt {row} has no tokens; start it with the BOS token or some text")
        if not 0 <= min(prompt) <= max(prompt) < vocabulary:
            raise ValueError(
                f"prompt {row} holds a token outside 0 … {vocabulary - 1}, the engine's model's vocabulary; use the model's own "
                "tokenizer"
            )
        if room and len(prompt) + params.max_new_tokens > room:
            raise ValueError(
                f"prompt {row} has {len(prompt)} tokens; with {params.max_new_tokens} new ones that is more than the engine's "
                f"{room}: raise its maximal length (vllm_max_model_length; --max_model_len of trellis vllm-serve), or shorten "
                "the prompts"
            )


def completions(
    answer: Any, params: SamplingParams, *, rows: int, vocabulary: int, source: str
) -> list[Completion]:
    """The completions in an answer. Raises ValueError where it is not `rows` whole ones, saying what was found."""
    ids, logps = (answer.get(k) if isinstance(answer, dict) else None for k in ("completion_ids", "logprobs"))
    if not isinstance(ids, list) or not isinstance(logps, list) or not len(ids) == len(logps) == rows:
        counts = [len(x) if isinstance(x, list) else None for x in (ids, logps)]
        raise ValueError(
            f"{source} answered with {counts[0]} completions and {counts[1]} rows of log-probabilities, expected {rows} of each"
        )
    for row, (tokens, values) in enumerate(zip(ids, logps, strict=True)):
        wrong = _wrong(tokens, values, params, vocabulary)
        if wrong:
            raise ValueError(f"{source}, completion {row}: {wrong}")
    return [_completion(tokens, values, params) for tokens, values in zip(ids, logps, strict=True)]


def _completion(tokens: list[int], values: list[float], params: SamplingParams) -> Completion:
    drawn = [0.0] * len(tokens) if params.greedy else values
    return Completion(tokens, values, drawn, "stop" if tokens[-1] in params.stop_ids else "length")


def _wrong(tokens: Any, values: Any, params: SamplingParams, vocabulary: int) -> str:
    """What is wrong with a completion, or ''."""
    if not _all(tokens, lambda x: isinstance(x, int) and 0 <= x < vocabulary):
        return f"token ids must be whole numbers in 0 … {vocabulary - 1}, the trained model's vocabulary"
    if not _all(values, lambda x: isinstance(x, int | float) and math.isfinite(x) and x < 1e-3):
        return "log-probabilities must be finite numbers not above 0"
    if len(tokens) != len(values):
        return f"{len(tokens)} tokens, {len(values)} log-probabilities"
    ended = [token in params.stop_ids for token in tokens]
    if any(a and not b for a, b in pairwise(ended)) or sum(ended) > 1:
        return "it goes on after a stop token"
    if not (ended and ended[-1]) and len(tokens) != params.max_new_tokens:
        return (
            f"it ends after {len(tokens)} of {params.max_new_tokens} tokens without a stop token; is the server's maximal length "
            "too short?"
        )
    return ""


def _all(values: Any, fits: Any) -> bool:
    return isinstance(values, list) and all(fits(value) for value in values)
