"""score(): the model's own numbers, forward and backward, in every layout and architecture."""

from __future__ import annotations

import pytest
import torch

from tests.builders import tiny_model, tiny_tokenizer
from trellis.scoring import plan_for, score

from .rows import plain, rows

KINDS = ["llama", "gpt2", "gpt_neox", "gemma2", "cohere", "granite", "qwen2", "mistral"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["auto", "padded"])
def test_scores_are_the_models_own(kind: str, layout: str) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(kind, tokenizer).eval()
    batch = rows([11, 3, 17, 6], len(tokenizer))
    want, entropy = plain(model, batch, 0.7)
    got = score(model, batch, temperature=0.7, entropy=True, hits=True, layout=layout)
    torch.testing.assert_close(got.logps, want, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(got.entropy, entropy, atol=2e-5, rtol=1e-5)
    assert not got.hits[~batch.loss_mask].any()
    weights = torch.randn(want.shape, generator=torch.Generator().manual_seed(1))
    (want * weights + 0.3 * entropy).sum().backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    (got.logps * weights + 0.3 * got.entropy).sum().backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(expected) == len(found)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_fast_head_is_used(kind: str) -> None:
    model = tiny_model(kind, tiny_tokenizer()).eval()
    plan = plan_for(model, "auto")
    assert plan.fused, plan.reason
    # Gemma-2's attention is soft-capped, which no fused kernel knows: transformers itself runs it eagerly.
    assert plan.layout == ("padded" if kind == "gemma2" else "shared"), plan.reason
