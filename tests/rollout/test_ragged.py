"""Sampling without padding and without copies of prompts gives the padded way's numbers, and is left where it would not."""

import pytest
import torch

from tests.builders import KINDS, tiny_model
from trellis.rollout import RolloutStats, SamplingParams, padded, ragged, sample
from trellis.rollout.attention import decode_attention

PROMPTS = [[7, 9, 11, 30, 41, 8, 100], [5, 6], [90, 33, 21, 200, 17, 4]]
OWNER = [0, 0, 0, 1, 2, 2]
TOKENS = torch.tensor(
    [[2, 3, 8, 1, 9], [5, 8, 1, 1, 1], [13, 21, 7, 4, 4], [6, 6, 6, 6, 6], [9, 8, 7, 6, 5], [1, 2, 3, 4, 5]]
)


def decoded(way, model):
    """Logits after the prompts and after each of five tokens; rows leave after the second."""
    with torch.no_grad():
        rows = way.read(model, PROMPTS, RolloutStats()).start(OWNER, last=True)
        found, tokens = [rows.logits], TOKENS
        for step in range(TOKENS.shape[1]):
            rows.advance(tokens[:, step])
            found.append(rows.logits)
            if step == 1:
                keep = [0, 2, 5]
                rows.select(keep)
                tokens = tokens[keep]
    return found


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_both_ways_give_the_same_logits(kind):
    model = tiny_model(kind, **({"sliding_window": 12} if kind == "mistral" else {}))
    fits = ragged.suits(model, 12)
    assert fits == (kind != "gemma2")  # soft-capped attention
    if fits:
        for ours, plain in zip(decoded(ragged, model), decoded(padded, model), strict=True):
            assert torch.allclose(ours, plain, atol=1e-4)


def test_one_softmax_over_prompt_and_completion():
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, h, n, 8, generator=draw) for h, n in ((4, 1), (2, 5), (2, 5)))
    prompts = [tuple(torch.randn(1, 2, n, 8, generator=draw) * 3 for _ in "kv") for n in (6, 9)]
    found = decode_attention(query, (key, value), prompts, [2, 1], scale=0.5)
    for row, (k0, v0) in enumerate([prompts[0], prompts[0], prompts[1]]):
        keys, values = (
            torch.cat([x[0], y[row]], dim=1).repeat_interleave(2, 0) for x, y in ((k0, key), (v0, value))
        )
        weights = (0.5 * query[row] @ keys.transpose(1, 2)).double().softmax(-1)
        assert torch.allclose(found[row].double(), weights @ values.double(), atol=1e-6)


def test_prompts_are_read_in_parts_and_all_the_same():
    model = tiny_model("llama", max_position_embeddings=2_048)
    prompts = [[(i * j) % 300 for i in range(900)] for j in range(1, 6)]
    assert ragged.suits(model, 900)
    with torch.no_grad():
        together = ragged.read(model, prompts, stats := RolloutStats())
        assert stats.prefill_tokens == 4_500
        alone = torch.cat([model(torch.tensor([p])).logits[:, -1] for p in prompts])
    assert torch.allclose(together.logits, alone, atol=1e-4)


def test_rows_beyond_a_sliding_window_are_padded():
    model = tiny_model("mistral")
    assert ragged.suits(model, model.config.sliding_window)
    assert not ragged.suits(model, model.config.sliding_window + 1)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_other_attention_is_padded_and_samples_the_same(implementation):
    model = tiny_model("llama")
    params = SamplingParams(max_new_tokens=8)
    want = [c.ids for c in sample(model, PROMPTS, params, n=2, seeds=range(6))]
    model.set_attn_implementation(implementation)
    stats = RolloutStats()
    assert [c.ids for c in sample(model, PROMPTS, params, n=2, seeds=range(6), stats=stats)] == want
    assert (stats.pad_tokens > 0) == (implementation == "eager")


def test_weights_that_diverged_are_named_by_row():
    model = tiny_model("llama")
    assert ragged.suits(model, 8)
    with torch.no_grad():
        model.model.embed_tokens.weight[200] = float("nan")
    with pytest.raises(FloatingPointError, match="row 4, new token 0.*2 of 6 rows"):
        sample(model, PROMPTS, SamplingParams(max_new_tokens=2), n=2, seeds=range(6))
