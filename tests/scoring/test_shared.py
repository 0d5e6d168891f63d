"""The shared prompt: computed once per group, exact in value and gradient, invisible to callers."""

from __future__ import annotations

import pytest
import torch

from tests.builders import recompute_activations, tiny_classifier, tiny_model, tiny_tokenizer
from trellis.scoring import plan_for, score, sequence_scores, token_values
from trellis.scoring.layout import packed, shared
from trellis.types import TokenBatch

SPEC = [  # (group, prompt seed, prompt length, completion length)
    (0, 1, 6, 5),
    (0, 1, 6, 2),
    (1, 2, 9, 1),
    (0, 1, 6, 0),
    (1, 2, 9, 7),
    (2, 3, 4, 3),
    (3, 4, 5, 3),
    (3, 5, 5, 3),  # the same group and length, but another prompt
    (4, 6, 0, 4),
    (4, 6, 0, 2),
]


def groups(vocab: int, *, prompts: bool = False) -> TokenBatch:
    """Rows of SPEC; with `prompts` their prompts are masked in too."""
    ids, marks = [], []
    for row, (_, seed, prompt, completion) in enumerate(SPEC):
        head = torch.randint(0, vocab, (prompt,), generator=torch.Generator().manual_seed(seed)).tolist()
        tail = torch.randint(
            0, vocab, (completion,), generator=torch.Generator().manual_seed(99 + row)
        ).tolist()
        ids.append(head + tail)
        marks.append([int(prompts)] * prompt + [1] * completion)
    return TokenBatch.from_lists(ids, marks, group=[s[0] for s in SPEC], prompt_len=[s[2] for s in SPEC])


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "cohere", "granite", "qwen2", "mistral"])
@pytest.mark.parametrize("prompts", [False, True])
def test_shared_equals_padded_forward_and_backward(kind: str, prompts: bool) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(kind, tokenizer).double()
    batch = groups(len(tokenizer), prompts=prompts)
    assert plan_for(model, "auto").layout == "shared", plan_for(model, "auto").reason
    weights = torch.randn(
        batch.input_ids.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    found = {}
    for layout in ("padded", "shared"):
        model.zero_grad()
        logps = score(model, batch, layout=layout).logps
        (logps * weights).sum().backward()
        found[layout] = [logps.detach(), *(p.grad.clone() for p in model.parameters())]
    for a, b in zip(*found.values(), strict=True):
        # Norms and rotary angles stay float32 inside a float64 model, so float32 rounding is the limit.
        torch.testing.assert_close(a, b, atol=3e-6, rtol=3e-5)


def test_gradients_survive_recomputation() -> None:
    tokenizer = tiny_tokenizer()
    batch, found = groups(len(tokenizer)), []
    for layout in ("padded", "shared"):
        model = tiny_model("llama", tokenizer).train()
        recompute_activations(model)
        score(model, batch, layout=layout).logps.sum().backward()
        found.append([p.grad for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_a_prompt_is_laid_down_once() -> None:
    batch = groups(50)
    assert packed(batch).inputs["input_ids"].shape[1] == int(batch.lengths.sum())
    saved = 2 * 6 + 9  # two more rows of group 0, one of group 1; group 3's prompts differ, group 4 has none
    assert shared(batch).inputs["input_ids"].shape[1] == int(batch.lengths.sum()) - saved


def test_rows_of_their_own_are_packed() -> None:
    batch = groups(50)
    batch.group = torch.arange(len(batch))
    a, b = packed(batch), shared(batch)
    assert all(torch.equal(a.inputs[k], b.inputs[k]) for k in a.inputs)
    assert torch.equal(a.flat, b.flat)
    assert torch.equal(a.last, b.last)


def test_classifiers_share_too() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_classifier("llama", tokenizer).double()
    batch = groups(len(tokenizer))
    for ask in (sequence_scores, token_values):
        torch.testing.assert_close(
            ask(model, batch, layout="shared"), ask(model, batch, layout="padded"), atol=1e-6, rtol=1e-6
        )


def test_windows_shorter_than_a_row_hold_across_the_seam() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model("mistral", tokenizer, sliding_window=4).double()
    batch = groups(len(tokenizer))
    torch.testing.assert_close(
        score(model, batch, layout="shared").logps,
        score(model, batch, layout="padded").logps,
        atol=1e-6,
        rtol=1e-5,
    )
