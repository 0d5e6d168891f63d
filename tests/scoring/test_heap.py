"""What a forward pass leaves between the tensors that it keeps goes back to the system."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.measure import peak_memory
from tests.builders import recompute_activations, tiny_model
from trellis.scoring.heap import GAPS, gaps_given_back, give_back
from trellis.scoring.plan import trunk_of
from trellis.scoring.thrift import thrifty

TOKENS = 3000
SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "max_position_embeddings": TOKENS,
}


def passes(model: Any, tokens: int) -> None:
    """Two steps of unlike lengths, as training has them; `tokens` is what the pass is said to read."""
    trunk = trunk_of(model)
    for count in (TOKENS - 300, TOKENS):
        ids = torch.arange(count)[None] % 300
        with thrifty(trunk), gaps_given_back(trunk, tokens):
            states = trunk(input_ids=ids, use_cache=False).last_hidden_state
        states.sum().backward()
        model.zero_grad()


def test_less_of_the_memory_is_gaps() -> None:
    model = tiny_model("llama", **SHAPE)
    with_gaps, without = (peak_memory(lambda n=n: passes(model, n)) for n in (0, TOKENS))
    assert without < 0.95 * with_gaps, (without, with_gaps)


def test_a_small_heap_is_left_alone() -> None:
    assert not give_back(1 << 40)
    assert GAPS > 1 << 20


def test_nothing_hangs_on_the_layers_afterwards_or_where_it_would_not_help() -> None:
    model = tiny_model("llama", **SHAPE)
    trunk: Any = trunk_of(model)

    def hooks() -> int:
        return sum(len(layer._forward_hooks) for layer in trunk.layers)

    with gaps_given_back(trunk, TOKENS):
        assert hooks() == len(trunk.layers) / 2
    assert hooks() == 0
    with gaps_given_back(trunk, 10):
        assert hooks() == 0
    with torch.no_grad(), gaps_given_back(trunk, TOKENS):
        assert hooks() == 0
    recompute_activations(model)
    with gaps_given_back(trunk, TOKENS):
        assert hooks() == 0
