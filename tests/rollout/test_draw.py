"""Filters and inverse-CDF sampling."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from trellis.rollout import SamplingParams
from trellis.rollout.draw import draw, filtered, inverse_cdf, penalised


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.1, 3.0),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.05, 1.0),
    min_p=st.floats(0.0, 0.9),
)
def test_filters_are_those_of_generate(seed, temperature, top_k, top_p, min_p):
    logits = torch.randn(4, 33, generator=torch.Generator().manual_seed(seed)) * 3
    steps = [TemperatureLogitsWarper(temperature)]
    steps += [TopKLogitsWarper(top_k)] if top_k else []
    steps += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    steps += [MinPLogitsWarper(min_p)] if min_p else []
    expected = logits
    for step in steps:
        expected = step(None, expected)
    params = SamplingParams(8, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    assert torch.equal(filtered(logits, params), expected)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), penalty=st.floats(0.2, 4.0))
def test_what_was_said_is_penalised_as_by_generate(seed, penalty):
    draw_from = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 20, generator=draw_from) * 3
    said = torch.randint(0, 20, (3, 6), generator=draw_from)
    seen = torch.zeros(3, 20, dtype=torch.bool).scatter(1, said, True)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(said, logits.clone())
    assert torch.allclose(penalised(logits, seen, penalty), expected)


def test_a_penalty_changes_what_is_drawn_from_and_not_the_full_distribution():
    logits = torch.log(torch.tensor([[0.6, 0.3, 0.1]])) + 1.5
    seen = torch.tensor([[True, False, False]])
    params = SamplingParams(8, repetition_penalty=1e6)
    drawn = draw(logits, params, torch.tensor([0.5], dtype=torch.float64), seen)
    weights = penalised(logits, seen, 1e6).exp()
    assert drawn.tokens.tolist() == [1]
    assert drawn.logps.exp().item() == pytest.approx(0.3)
    assert drawn.sampler_logps.exp().item() == pytest.approx((weights[0, 1] / weights.sum()).item())


def test_a_token_that_top_p_can_do_without_goes():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    assert filtered(logits, SamplingParams(8, top_p=0.5)).isfinite().tolist() == [[True, False, False]]


def test_shares_follow_the_probabilities():
    probs = torch.tensor([0.5, 0.0, 0.125, 0.375])
    uniforms = torch.arange(0, 8000, dtype=torch.float64) / 8000
    picked = inverse_cdf(probs.expand(8000, 4), uniforms)
    assert picked.bincount(minlength=4).tolist() == [4000, 0, 1000, 3000]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), u=st.sampled_from([0.0, 1e-300, 0.3, 0.5, 1 - 2**-53]))
def test_a_filtered_token_is_never_drawn(seed, u):
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(seed)) * 4
    params = SamplingParams(8, top_k=4, top_p=0.8)
    drawn = draw(logits, params, torch.full((3,), u, dtype=torch.float64))
    assert torch.isfinite(filtered(logits, params).gather(1, drawn.tokens[:, None])).all()
    assert torch.isfinite(drawn.sampler_logps).all()


def test_log_probabilities_of_both_distributions():
    logits = torch.log(torch.tensor([[0.4, 0.3, 0.2, 0.1]]))
    drawn = draw(logits, SamplingParams(8, top_k=2), torch.tensor([0.9], dtype=torch.float64))
    assert drawn.tokens.tolist() == [1]
    assert drawn.logps.exp().item() == pytest.approx(0.3)
    assert drawn.sampler_logps.exp().item() == pytest.approx(0.3 / 0.7)


def test_greedy_takes_the_likeliest_at_any_temperature():
    logits = torch.log(torch.tensor([[0.1, 0.6, 0.3]]))
    drawn = draw(logits, SamplingParams(8, temperature=0.5, greedy=True), torch.zeros(1, dtype=torch.float64))
    assert drawn.tokens.tolist() == [1]
    assert drawn.logps.exp().item() == pytest.approx(0.36 / (0.01 + 0.36 + 0.09))
    assert drawn.sampler_logps.tolist() == [0.0]


@pytest.mark.parametrize(
    ("values", "usable"),
    [
        ([0.0, 1.0], True),
        ([-float("inf"), 1.0], True),
        ([float("nan"), 1.0], False),
        ([float("inf"), 1.0], False),
    ],
)
@pytest.mark.parametrize("greedy", [True, False])
def test_unusable_logits_are_marked(values, usable, greedy):
    drawn = draw(
        torch.tensor([values]), SamplingParams(8, greedy=greedy), torch.tensor([0.5], dtype=torch.float64)
    )
    assert drawn.valid.tolist() == [usable]


@pytest.mark.parametrize(
    "bad",
    [
        {"max_new_tokens": 0},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": float("inf")},
    ],
)
def test_params_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        SamplingParams(**{"max_new_tokens": 4, **bad})
