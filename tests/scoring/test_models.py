"""score() on models as people have them: adapted, tied, frozen, half-precision, recomputing, or odd."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from tests.builders import recompute_activations, tiny_model
from trellis.models import load_causal_lm
from trellis.scoring import plan_for, score
from trellis.types import TokenBatch

from .rows import assert_gradients_close, gradients, plain, rows

LENGTHS = [11, 3, 17, 6]


class Biased(LlamaForCausalLM):
    """A model that does more to its logits than its config tells."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        out.logits = 0.3 * out.logits**2 + torch.arange(out.logits.shape[-1]) / 100
        return out


def biased() -> Any:
    donor = tiny_model("llama")
    model = Biased(donor.config).float().eval()
    model.load_state_dict(donor.state_dict())
    return model


def total(logps: torch.Tensor, entropy: torch.Tensor) -> torch.Tensor:
    weights = torch.randn(logps.shape, generator=torch.Generator().manual_seed(1))
    return (logps * weights + 0.3 * entropy).sum()


def assert_scores_like_the_model(model: nn.Module, batch: TokenBatch, **asked: Any) -> None:
    """Values and gradients of every trained parameter are those of the textbook."""
    want = plain(model, batch, 0.7)
    found = score(model, batch, temperature=0.7, entropy=True, hits=True, **asked)
    torch.testing.assert_close(found.logps, want[0], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(found.entropy, want[1], atol=2e-5, rtol=1e-5)
    expected = gradients(model, total(*want))
    assert expected
    assert_gradients_close(
        gradients(model, total(found.logps, found.entropy)), expected, atol=1e-4, rtol=1e-3
    )


def test_logits_that_no_config_explains_are_made_whole(caplog: Any) -> None:
    model = biased()
    with caplog.at_level(logging.INFO, logger="trellis.scoring.plan"):
        assert_scores_like_the_model(model, rows(LENGTHS))
    assert not plan_for(model, "auto").fused
    assert any("whole logits are made" in message for message in caplog.messages)
    with pytest.raises(ValueError, match="layout='auto'"):
        score(model, rows(LENGTHS), layout="packed")


def test_a_value_head_reads_the_same_states_on_either_path() -> None:
    head = nn.Linear(32, 1)
    batch = rows(LENGTHS)
    fused = score(tiny_model("llama"), batch, value_head=head)
    whole = score(biased(), batch, value_head=head)
    assert fused.values is not None
    assert whole.values is not None
    torch.testing.assert_close(fused.values, whole.values, atol=1e-5, rtol=1e-5)
    assert not fused.values[~batch.loss_mask].any()
    assert fused.values[batch.loss_mask].all()


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_an_adapted_head(layout: str) -> None:
    from peft import LoraConfig

    adapter = LoraConfig(r=4, target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    model = load_causal_lm(tiny_model("llama"), peft_config=adapter).eval()
    assert_scores_like_the_model(model, rows(LENGTHS), layout=layout)
    assert any("lm_head.lora" in name for name, p in model.named_parameters() if p.grad is not None)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_tied_embeddings_add_both_gradients(layout: str) -> None:
    model = tiny_model("llama", tie_word_embeddings=True)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert_scores_like_the_model(model, rows(LENGTHS), layout=layout)


def test_a_frozen_head_is_left_alone() -> None:
    model = tiny_model("llama", tie_word_embeddings=False)
    model.lm_head.requires_grad_(False)
    assert_scores_like_the_model(model, rows(LENGTHS))
    assert model.lm_head.weight.grad is None


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "mistral"])
def test_recomputed_activations(kind: str, layout: str) -> None:
    if kind == "gemma2" and layout == "packed":
        layout = "auto"  # its soft-capped attention is eager, which cannot be packed
    batch, model = rows(LENGTHS), tiny_model(kind).train()
    found = score(model, batch, entropy=True, layout=layout)
    want = gradients(model, total(found.logps, found.entropy))
    recompute_activations(model)
    found = score(model, batch, entropy=True, layout=layout)
    assert_gradients_close(gradients(model, total(found.logps, found.entropy)), want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_rows_longer_than_the_window(layout: str) -> None:
    model = tiny_model("mistral")
    assert model.config.sliding_window == 8
    batch = rows([30, 8, 9, 2])
    assert_scores_like_the_model(model, batch, layout=layout)
    wide = tiny_model("mistral", sliding_window=64)
    assert not torch.allclose(score(wide, batch).logps, score(model, batch).logps, atol=1e-4)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_rows_without_anything_to_say(layout: str) -> None:
    model = tiny_model("llama")
    mute = TokenBatch.from_lists([[5, 6, 7], [4], [9, 8], []], [[1, 1, 1], [1], [0, 0], []])
    found = score(model, mute, entropy=True, hits=True, value_head=nn.Linear(32, 1), layout=layout)
    want = score(model, TokenBatch.from_lists([[5, 6, 7]], [[1, 1, 1]]), entropy=True)
    torch.testing.assert_close(found.logps[:1], want.logps, atol=1e-6, rtol=1e-5)
    assert not found.logps[1:].any()
    silent = copy.copy(mute)
    silent.loss_mask = torch.zeros_like(mute.loss_mask)
    found = score(model, silent, entropy=True, hits=True, layout=layout)
    assert found.logps.shape == mute.input_ids.shape
    assert not found.logps.any()
    found.logps.sum().backward()  # a rank without a trained token takes part in the step all the same


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_bfloat16_weights(layout: str) -> None:
    batch, model = rows(LENGTHS), tiny_model("llama").bfloat16()
    found = score(model, batch, entropy=True, value_head=nn.Linear(32, 1), layout=layout)
    assert found.values is not None
    assert {found.logps.dtype, found.values.dtype} == {torch.float32}
    want, entropy = plain(model, batch)
    torch.testing.assert_close(found.logps, want, atol=0.05, rtol=0.02)
    torch.testing.assert_close(found.entropy, entropy, atol=0.05, rtol=0.02)
    grads = gradients(model, found.logps.sum())
    assert {g.dtype for g in grads.values()} == {torch.bfloat16}
    for name, value in gradients(model, want.sum()).items():
        torch.testing.assert_close(grads[name].norm(), value.norm(), rtol=0.05, atol=0.01)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_autocast(layout: str) -> None:
    batch, model = rows(LENGTHS), tiny_model("llama")
    exact = score(model, batch, layout=layout).logps
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = score(model, batch, value_head=nn.Linear(32, 1), layout=layout)
        again = score(model, batch, layout=layout).logps
        want, _ = plain(model, batch)
    assert torch.equal(found.logps, again)
    assert not torch.equal(found.logps, exact)
    assert {found.logps.dtype, found.values.dtype} == {torch.float32}  # type: ignore[union-attr]
    torch.testing.assert_close(found.logps, want, atol=0.05, rtol=0.02)
    grads = gradients(model, found.logps.sum())
    assert {g.dtype for g in grads.values()} == {torch.float32}
    for name, value in gradients(model, want.sum()).items():
        torch.testing.assert_close(grads[name].norm(), value.norm(), rtol=0.05, atol=0.01)


def test_a_float64_model_is_scored_in_float64() -> None:
    model, batch = tiny_model("gpt2").double(), rows(LENGTHS)
    want, _ = plain(model, batch)
    for layout in ("packed", "padded"):
        torch.testing.assert_close(score(model, batch, layout=layout).logps, want, rtol=1e-12, atol=1e-12)


def test_what_cannot_be_is_said() -> None:
    model, batch = tiny_model("llama"), rows(LENGTHS)
    with pytest.raises(ValueError, match="temperature must be positive, found 0"):
        score(model, batch, temperature=0)
    with pytest.raises(ValueError, match="layout='packt' is unknown.*auto"):
        score(model, batch, layout="packt")
