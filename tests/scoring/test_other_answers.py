"""Other answers to prompts that are read anyway: the numbers of a pass of their own, no gradient, and each prompt once."""

from __future__ import annotations

import pytest
import torch

from tests.builders import recompute_activations, tiny_model, tiny_tokenizer
from trellis.scoring import Work, counting, score, score_with_others
from trellis.types import TokenBatch

from .rows import gradients

PROMPTS, ANSWERS, OTHERS = (6, 9, 1, 0, 4), (5, 1, 3, 4, 2), (3, 7, 1, 5, 2)
"""Tokens of each row; the fourth has no prompt."""
KINDS = ("llama", "gpt2", "gpt_neox", "cohere", "granite", "qwen2", "mistral")


def answered(vocab: int, answers: tuple[int, ...], seed: int) -> TokenBatch:
    """The same prompts with answers that depend on the seed."""
    draw = torch.Generator().manual_seed(7)
    heads = [torch.randint(0, vocab, (n,), generator=draw).tolist() for n in PROMPTS]
    draw = torch.Generator().manual_seed(seed)
    tails = [torch.randint(0, vocab, (n,), generator=draw).tolist() for n in answers]
    rows = list(zip(heads, tails, strict=True))
    marks = [[0] * len(head) + [1] * len(tail) for head, tail in rows]
    return TokenBatch.from_lists([head + tail for head, tail in rows], marks, prompt_len=list(PROMPTS))


def batches() -> tuple[TokenBatch, TokenBatch]:
    vocab = len(tiny_tokenizer())
    return answered(vocab, ANSWERS, 1), answered(vocab, OTHERS, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_both_are_what_each_says_alone(kind: str) -> None:
    model, (batch, others) = tiny_model(kind), batches()
    alone = score(model, batch, entropy=True, layout="packed")
    found, of_others = score_with_others(model, batch, others, entropy=True)
    assert torch.equal(found.logps, alone.logps)
    assert torch.equal(found.entropy, alone.entropy)
    assert not of_others.requires_grad
    torch.testing.assert_close(of_others, score(model, others).logps.sum(1).detach(), atol=1e-4, rtol=1e-5)
    want = gradients(model, alone.logps.sum())
    for name, gradient in gradients(model, found.logps.sum()).items():
        assert torch.equal(gradient, want[name]), name


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_other_layouts_take_two_whole_passes(layout: str) -> None:
    model, (batch, others) = tiny_model("llama"), batches()
    found, of_others = score_with_others(model, batch, others, layout=layout)
    assert torch.equal(found.logps, score(model, batch, layout=layout).logps)
    assert torch.equal(of_others, score(model, others, layout=layout).logps.sum(1))


def test_rows_that_begin_otherwise_are_read_whole() -> None:
    model, (batch, others) = tiny_model("llama"), batches()
    others.input_ids[1, 0] += 1
    _, of_others = score_with_others(model, batch, others)
    torch.testing.assert_close(of_others, score(model, others).logps.sum(1), atol=1e-4, rtol=1e-5)


def test_layers_that_are_computed_again_know_the_first_pass_only() -> None:
    model, (batch, others) = tiny_model("llama"), batches()
    want = gradients(model, score_with_others(model, batch, others)[0].logps.sum())
    recompute_activations(model.train())
    found = gradients(model, score_with_others(model, batch, others)[0].logps.sum())
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, want[name], atol=1e-5, rtol=1e-4)


def test_a_prompt_is_read_once_and_its_last_token_again() -> None:
    model, (batch, others) = tiny_model("llama"), batches()
    score_with_others(model, batch, others)  # which probes the model first
    with counting(Work()) as work:
        score_with_others(model, batch, others)
    read = sum(PROMPTS) + sum(ANSWERS) + sum(OTHERS) + sum(n > 0 for n in PROMPTS)
    trained = sum(ANSWERS) + sum(OTHERS) - 2  # the first token of the row without a prompt has no past
    assert work == Work(
        passes=2, trunk_tokens=read, useful_tokens=read, head_rows=trained, trained_tokens=trained
    )
