"""The last layer's feed-forward part is computed at the tokens that are read, and nothing that is read changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from tests.builders import KINDS, recompute_activations, tiny_classifier, tiny_model
from trellis.scoring import score, sequence_scores, token_values
from trellis.scoring.last_layer import last_feed_forward, read_at
from trellis.scoring.plan import plan_for, trunk_of
from trellis.types import TokenBatch

from .rows import assert_gradients_close, gradients, plain, rows

LENGTHS = [12, 9, 4]


def layers_of(model: nn.Module) -> Any:
    trunk = trunk_of(model)
    return getattr(trunk, "layers", None) or trunk.h


@contextmanager
def counted(model: nn.Module) -> Iterator[list[int]]:
    """Tokens that go through the first matrix of each layer's feed-forward part, layer after layer."""
    seen: list[int] = []
    handles = []
    for layer in layers_of(model):
        first = next(m for m in layer.mlp.modules() if hasattr(m, "weight"))
        handles.append(first.register_forward_pre_hook(lambda m, x: seen.append(x[0][..., 0].numel())))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["auto", "padded"])
def test_tokens_that_nobody_reads_stop_before_it(kind: str, layout: str) -> None:
    model, batch = tiny_model(kind), rows(LENGTHS)
    want = gradients(model, plain(model, batch)[0].sum())
    score(model, batch, layout=layout)  # the probe is not what is counted
    with counted(model) as seen:
        found = score(model, batch, layout=layout).logps
    padded = plan_for(model, layout).layout == "padded"
    tokens = len(LENGTHS) * max(LENGTHS) if padded else sum(LENGTHS)
    assert seen == [tokens, int(batch.loss_mask.sum())]
    torch.testing.assert_close(found, plain(model, batch)[0], atol=2e-5, rtol=2e-5)
    assert_gradients_close(gradients(model, found.sum()), want, atol=2e-4, rtol=2e-4)


def test_a_shared_state_is_computed_once_and_gets_all_gradients() -> None:
    ids = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 8], [1, 2, 3, 9]]
    marks = [[0] * 3 + [1] * (len(row) - 3) for row in ids]
    batch = TokenBatch.from_lists(ids, marks, group=[0, 0, 0], prompt_len=[3, 3, 3])
    model = tiny_model("llama")
    want = gradients(model, plain(model, batch)[0].sum())
    score(model, batch)
    with counted(model) as seen:
        found = score(model, batch).logps
    assert seen == [
        9,
        4,
    ]  # the prompt's last state predicts three first tokens; a row's last state predicts nothing
    assert_gradients_close(gradients(model, found.sum()), want, atol=1e-5, rtol=1e-5)


def test_critics_and_verdicts() -> None:
    model, batch = tiny_classifier("llama"), rows(LENGTHS)
    sequence_scores(model, batch)
    with counted(model) as seen:
        sequence_scores(model, batch)
        token_values(model, batch)
    assert seen == [sum(LENGTHS), len(LENGTHS), sum(LENGTHS), int(batch.loss_mask.sum())]


def test_layers_that_are_computed_again_are_computed_whole() -> None:
    model, batch = tiny_model("llama").train(), rows(LENGTHS)
    want = gradients(model, score(model, batch).logps.sum())
    recompute_activations(model)
    with counted(model) as seen:
        found = gradients(model, score(model, batch).logps.sum())
    assert seen == [sum(LENGTHS)] * 4
    assert_gradients_close(found, want, atol=1e-6, rtol=1e-5)
    with torch.no_grad(), counted(model) as seen:
        score(model, batch)
    assert seen == [sum(LENGTHS), int(batch.loss_mask.sum())]


def test_experts_and_parts_with_weights_of_their_own_are_left_alone() -> None:
    trunk: Any = trunk_of(tiny_model("llama"))
    part = trunk.layers[-1].mlp
    assert last_feed_forward(trunk) is part
    part.experts = nn.ModuleList([nn.Linear(4, 4)])
    assert last_feed_forward(trunk) is None
    del part.experts
    part.shift = nn.Parameter(torch.zeros(2))
    assert last_feed_forward(trunk) is None
    assert last_feed_forward(nn.Linear(2, 2)) is None


def test_adapters_are_part_of_it() -> None:
    from peft import LoraConfig

    from trellis.models import load_causal_lm

    config = LoraConfig(r=4, target_modules=["down_proj", "q_proj"], init_lora_weights=False)
    model: Any = load_causal_lm(tiny_model("llama"), peft_config=config)
    batch = rows(LENGTHS)
    want = gradients(model, plain(model, batch)[0].sum())
    score(model, batch)
    assert last_feed_forward(trunk_of(model)) is not None
    found = gradients(model, score(model, batch).logps.sum())
    assert_gradients_close(found, want, atol=1e-5, rtol=1e-4)


def test_a_forward_of_the_users_own_is_used_and_comes_back() -> None:
    model, batch = tiny_model("llama"), rows(LENGTHS)
    part, calls = model.model.layers[-1].mlp, []
    original = part.forward

    def own(x: torch.Tensor) -> torch.Tensor:
        calls.append(x.shape)
        return original(x)

    part.forward = own
    trunk, wanted = trunk_of(model), torch.tensor([2, 4, 2])
    with read_at(trunk, wanted):
        trunk(input_ids=batch.input_ids[:1], use_cache=False)
    with pytest.raises(IndexError), read_at(trunk, wanted):
        trunk(input_ids=batch.input_ids[:1] + 10_000, use_cache=False)
    assert calls == [(1, 2, 32)]
    assert part.__dict__["forward"] is own
