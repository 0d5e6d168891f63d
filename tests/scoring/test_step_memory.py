"""The memory of a step grows with its parts, and with no product of them that TRL-like code would make.

`beyond` is a mixed second difference: whatever grows with either of two sizes alone cancels, what grows with their product stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.builders import tiny_model
from trellis.rollout import SamplingParams, sample
from trellis.scoring import score
from trellis.scoring.tiles import TILE_ELEMENTS
from trellis.types import TokenBatch

from .peak import peak_bytes

ALIGNED = 8
"""Log-probabilities and entropies as they come back, [B, T] float32: bytes per row and column, real or not."""
ROOM = {"max_position_embeddings": 2048}


def group(samples: int, prompt: int, completion: int = 20, pad: int = 0) -> TokenBatch:
    """Completions of one prompt; `pad` columns in which no row has a token."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 300, (prompt + samples * completion,), generator=draw)
    before, after = ids[:prompt].tolist(), ids[prompt:].view(samples, completion).tolist()
    marks = [[0] * prompt + [1] * completion] * samples
    batch = TokenBatch.from_lists(
        [before + row for row in after], marks, group=[0] * samples, prompt_len=[prompt] * samples
    )
    return batch.mapped(lambda x: nn.functional.pad(x, (0, pad)) if x.dim() == 2 else x)


def step(model: Any, batch: TokenBatch, layout: str = "auto") -> int:
    """Bytes of scoring a batch and of its backward pass."""

    def compute() -> None:
        found: Any = score(model, batch, entropy=True, layout=layout)
        (found.logps.sum() + found.entropy.sum()).backward()
        model.zero_grad()

    score(model, batch, layout=layout)  # the probe is not what is measured
    return peak_bytes(compute)


def beyond(measure: Callable[[int, int], int], a: int, b: int) -> float:
    """Bytes per unit of the product of two sizes, from doubling each and both of them."""
    both = measure(2 * a, 2 * b) - measure(2 * a, b) - measure(a, 2 * b) + measure(a, b)
    return both / (a * b)


def test_samples_times_prompt_length() -> None:
    model = tiny_model("llama", **ROOM)
    assert beyond(lambda samples, prompt: step(model, group(samples, prompt)), 4, 200) <= ALIGNED


def test_a_prompt_for_each_sample_would_be_seen() -> None:
    model = tiny_model("llama", **ROOM)
    found = beyond(lambda samples, prompt: step(model, group(samples, prompt), "packed"), 4, 200)
    assert found > 100 * ALIGNED  # every layer's activations of every copy


def test_padding() -> None:
    model = tiny_model("llama", **ROOM)
    less, more = (step(model, group(4, 200, pad=pad)) for pad in (0, 1000))
    assert more - less <= 4 * 1000 * ALIGNED


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_rows_times_the_longest_of_them(layout: str) -> None:
    model = tiny_model("llama", **ROOM)

    def measure(rows: int, longest: int) -> int:
        ids = [[i % 300 for i in range(n)] for n in [40] * rows + [longest]]
        marks = [[0] * (len(row) - 20) + [1] * 20 for row in ids]
        return step(model, TokenBatch.from_lists(ids, marks), layout)

    found = beyond(measure, 4, 400)
    assert found <= ALIGNED if layout == "packed" else found > 100 * ALIGNED


@pytest.mark.slow
def test_vocabulary_times_length() -> None:
    sizes, length = (1 << 15, 1 << 16), 256  # tiles of all of them are full
    assert (
        sizes[0] * length > TILE_ELEMENTS["cpu"]
    )  # already here logits of all positions do not fit into a tile
    models = {v: tiny_model("llama", vocab_size=v, tie_word_embeddings=False, **ROOM) for v in sizes}
    assert beyond(lambda v, n: step(models[v], group(1, 20, n)), sizes[0], length) < 0.01


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_samples_times_prompt_length_in_sampling(attention: str) -> None:
    model, params = tiny_model("llama", attn_implementation=attention, **ROOM), SamplingParams(8)

    def measure(samples: int, prompt: int) -> int:
        prompts, seeds = [list(range(1, prompt + 1))], range(samples)
        sample(model, [[1, 2]], params, n=samples, seeds=seeds)
        return peak_bytes(lambda: sample(model, prompts, params, n=samples, seeds=seeds))

    found = beyond(measure, 16, 120)
    assert found <= 0 if attention == "sdpa" else found > 100  # eager: a memory of the prompt for each row
