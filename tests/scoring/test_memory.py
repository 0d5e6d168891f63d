"""Scoring makes no tensor of vocabulary × tokens, however large either is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.builders import tiny_model
from trellis.scoring import score
from trellis.scoring.tiles import CHUNK_ELEMENTS, TILE_ELEMENTS

from .largest import Largest
from .rows import rows

VOCAB, LENGTHS = 1 << 15, [400, 150, 450]
TOKENS = sum(LENGTHS)
HEADS, LONGEST = 4, max(LENGTHS)


def one_step(
    vocab: int = VOCAB, lengths: list[int] = LENGTHS, *, layout: str = "auto", frozen: bool = False
) -> int:
    """Elements of the largest tensor in scoring and its backward pass, apart from the gradients of weights."""
    model = tiny_model("llama", vocab_size=vocab, tie_word_embeddings=False)
    model.lm_head.requires_grad_(not frozen)
    batch = rows(lengths, vocab)
    score(model, batch, layout=layout)  # the probe is not what is measured
    with Largest(ignore={tuple(p.shape) for p in model.parameters()}) as seen:
        found = score(model, batch, entropy=True, hits=True, value_head=nn.Linear(32, 1), layout=layout)
        (found.logps.sum() + found.entropy.sum()).backward()
    return seen.elements


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_largest_tensor_is_a_tile(layout: str, frozen: bool) -> None:
    most = CHUNK_ELEMENTS["cpu"] if frozen else TILE_ELEMENTS["cpu"]
    assert VOCAB * TOKENS * 2 // 3 > 2 * most
    assert one_step(layout=layout, frozen=frozen) <= most


def test_twice_the_vocabulary_or_the_length_needs_no_more() -> None:
    most = TILE_ELEMENTS["cpu"]
    assert one_step() > 0.9 * most
    assert one_step(vocab=2 * VOCAB) <= most
    assert one_step(lengths=[2 * n for n in LENGTHS]) <= most


def test_an_adapted_head_keeps_to_it_too() -> None:
    from peft import LoraConfig

    from trellis.models import load_causal_lm

    adapter = LoraConfig(r=4, target_modules=["lm_head"])
    model: Any = load_causal_lm(
        tiny_model("llama", vocab_size=VOCAB, tie_word_embeddings=False), peft_config=adapter
    )
    batch = rows(LENGTHS, VOCAB)
    score(model, batch)
    with Largest(ignore={tuple(p.shape) for p in model.parameters()}) as seen:
        score(model, batch).logps.sum().backward()
    assert seen.elements <= CHUNK_ELEMENTS["cpu"]


def test_whole_logits_would_be_seen() -> None:
    model, batch = tiny_model("llama", vocab_size=VOCAB), rows(LENGTHS, VOCAB)
    with Largest(ignore={tuple(p.shape) for p in model.parameters()}) as seen, torch.no_grad():
        logits = model(input_ids=batch.input_ids, use_cache=False).logits
        logits.log_softmax(-1).gather(-1, batch.input_ids[..., None])
    assert seen.elements >= VOCAB * len(LENGTHS) * LONGEST > CHUNK_ELEMENTS["cpu"]


def test_packed_attention_makes_no_mask_of_all_tokens() -> None:
    lengths = [150] * 16
    model = tiny_model("llama")
    batch = rows(lengths)
    score(model, batch, layout="packed")
    with Largest() as seen:
        score(model, batch, layout="packed").logps.sum().backward()
    # Nothing grows with the square of the packed length: the largest are the chunk of logits and the hidden states.
    assert seen.elements <= sum(lengths) * model.config.vocab_size < sum(lengths) ** 2
