"""What a model answers to prompts, to be judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..data import prepare_prompts
from ..models import load_causal_lm, load_tokenizer
from ..rollout import SamplingParams, sample, stop_ids


def write_answers(
    model: Any,
    prompts: Sequence[Any],
    processing_class: Any = None,
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    rows: int = 8,
    device: torch.device | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """One answer of `model` (a module, path or name) to each prompt, a text or chat; temperature 0 takes the likeliest token.

    `rows` are decoded at once, in float32 on a CPU and as they are stored elsewhere; `progress(done, all)` is called after each
    lot. The answer to prompt i depends on `seed` and i alone. Raises ValueError for an empty prompt.
    """
    tokenizer = load_tokenizer(processing_class, model)
    data, _ = prepare_prompts([{"prompt": prompt} for prompt in prompts], tokenizer, name="prompts")
    if len(data) < len(prompts):
        raise ValueError(f"{len(prompts) - len(data)} of {len(prompts)} prompts are empty; leave them out")
    loaded: Any = load_causal_lm(model, {"dtype": "auto"} if device and isinstance(model, str) else None)
    loaded.to(device or next(loaded.parameters()).device)
    params = SamplingParams(
        max_new_tokens=max_new_tokens,
        greedy=temperature == 0,
        temperature=temperature or 1.0,
        stop_ids=stop_ids(tokenizer, loaded.generation_config),
    )
    said: list[str] = []
    for start in range(0, len(data), rows):
        lot = range(start, min(start + rows, len(data)))
        seeds = [seed * 1_000_003 + i for i in lot]
        written = sample(loaded, [data[i]["prompt_ids"] for i in lot], params, seeds=seeds)
        said += [tokenizer.decode(completion.ids, skip_special_tokens=True) for completion in written]
        if progress is not None:
            progress(len(said), len(data))
    return said
