"""Advantages: GAE against a double loop, whitening against its definition, scores on the token that earned them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trellis.advantages import discounted_sum, gae, last_token, moments, place_score, whiten
from trellis.types import TokenBatch


def naive_gae(rewards, values, start, end, gamma, lam):
    """Schulman et al. 2016, eq. 16, term by term, for one row whose response is [start, end)."""
    advantages = [0.0] * len(rewards)
    for t in range(start, end):
        for k in range(end - t):
            after = values[t + k + 1] if t + k + 1 < end else 0.0
            delta = rewards[t + k] + gamma * after - values[t + k]
            advantages[t] += (gamma * lam) ** k * delta
    return advantages


spans = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9)), min_size=1, max_size=4)
shares = st.sampled_from([0.0, 0.5, 0.95, 1.0])


@settings(max_examples=60, deadline=None)
@given(spans=spans, gamma=shares, lam=shares, seed=st.integers(0, 99))
def test_gae_is_the_double_loop(spans, gamma, lam, seed):
    width = max(start + length for start, length in spans) + 1
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, len(spans), width, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[start <= t < start + length for t in range(width)] for start, length in spans])
    advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=lam)
    for row, (start, length) in enumerate(spans):
        expected = naive_gae(rewards[row].tolist(), values[row].tolist(), start, start + length, gamma, lam)
        torch.testing.assert_close(advantages[row], torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(returns, advantages + values * mask)


def test_gae_by_hand():
    """γ = λ = ½, so γλ = ¼; values after the end are 0, and what stands outside the mask is nobody's business."""
    mask = torch.tensor([[False, True, True, False]])
    rewards = torch.tensor([[9.0, 1.0, 2.0, 9.0]], dtype=torch.float64)
    values = torch.tensor([[9.0, 4.0, 8.0, 9.0]], dtype=torch.float64)
    advantages, returns = gae(rewards, values, mask, gamma=0.5, lam=0.5)
    # δ_1 = 1 + ½·8 − 4 = 1, δ_2 = 2 − 8 = −6; A_1 = 1 − 6/4
    assert advantages.tolist() == [[0.0, -0.5, -6.0, 0.0]]
    assert returns.tolist() == [[0.0, 3.5, 2.0, 0.0]]


def test_lambda_one_gives_the_sum_of_rewards_and_lambda_zero_one_step():
    mask = torch.ones(1, 5, dtype=torch.bool)
    rewards, values = torch.randn(2, 1, 5, dtype=torch.float64)
    _, returns = gae(rewards, values, mask, gamma=1.0, lam=1.0)
    torch.testing.assert_close(returns, rewards.flip(1).cumsum(1).flip(1))
    advantages, _ = gae(rewards, values, mask, gamma=1.0, lam=0.0)
    after = torch.cat([values[:, 1:], torch.zeros(1, 1, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(advantages, rewards + after - values)


@pytest.mark.parametrize("width", [0, 1, 2, 7, 8, 9])
def test_discounted_sum_at_every_width(width):
    x = torch.randn(2, width, dtype=torch.float64)
    expected = torch.zeros_like(x)
    for t in range(width):
        expected[:, t] = sum((0.9**k * x[:, t + k] for k in range(width - t)), torch.zeros(2))
    torch.testing.assert_close(discounted_sum(x, 0.9), expected)


def test_a_long_row_takes_few_operations():
    """log2(T) rounds, not T: the number of tensor operations barely grows with the length."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.calls += 1
            return func(*args, **(kwargs or {}))

    found = []
    for width in (16, 4096):
        x, mask = torch.randn(2, width), torch.ones(2, width, dtype=torch.bool)
        with Count() as count:
            gae(x, x, mask, gamma=1.0, lam=0.95)
        found.append(count.calls)
    assert found[1] < 3 * found[0]
    assert found[1] < 200


def test_whiten_by_definition():
    mask = torch.tensor([[False, True, True], [True, False, True]])
    x = torch.randn(2, 3, dtype=torch.float64)
    picked = x[mask]
    expected = (picked - picked.mean()) / (picked.var(unbiased=True) + 1e-8).sqrt()
    white = whiten(x, mask)
    torch.testing.assert_close(white[mask], expected)
    assert (white[~mask] == 0).all()
    kept = whiten(x, mask, shift_mean=False)
    torch.testing.assert_close(kept[mask], expected + picked.mean())


def test_moments_of_two_ranks_whiten_like_one():
    x, mask = torch.randn(6, 5), torch.rand(6, 5) > 0.4
    together = whiten(x, mask)
    stats = moments(x[:2], mask[:2]) + moments(x[2:], mask[2:])
    apart = torch.cat([whiten(x[:2], mask[:2], stats), whiten(x[2:], mask[2:], stats)])
    torch.testing.assert_close(apart, together)
    alone = torch.cat([whiten(x[:2], mask[:2]), whiten(x[2:], mask[2:])])
    assert not torch.allclose(alone, together, atol=1e-3)


@pytest.mark.parametrize("count", [0, 1])
def test_whitening_next_to_nothing_stays_finite(count):
    x, mask = torch.tensor([[3.0, 5.0]]), torch.tensor([[bool(count), False]])
    assert whiten(x, mask).tolist() == [[0.0, 0.0]]
    assert whiten(x, mask, shift_mean=False).tolist() == [[3.0 * count, 0.0]]


def test_whitening_equal_numbers_gives_zeros():
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert whiten(torch.full((1, 4), 0.1), mask).abs().max() < 1e-3


def test_the_score_lands_on_the_last_real_token():
    """pad == eos == 2: an end token is found by its place, not by its number; the prompt's own end token does not count."""
    eos = pad = 2
    rows = [[5, eos, 6, 7, eos], [5, 6, 7], [eos, eos], [5, 6]]
    marks = [[0, 0, 1, 1, 1], [0, 1, 1], [0, 1], [0, 0]]  # the last row has no response
    batch = TokenBatch.from_lists(rows, marks, pad=pad)
    assert last_token(batch.loss_mask).tolist() == [4, 2, 1, 0]
    placed = place_score(torch.tensor([1.0, 2.0, 3.0, 4.0]), batch.loss_mask)
    assert placed.tolist() == [[0, 0, 0, 0, 1.0], [0, 0, 2.0, 0, 0], [0, 3.0, 0, 0, 0], [0, 0, 0, 0, 0]]


def test_an_empty_response_gets_no_advantage():
    mask = torch.zeros(2, 3, dtype=torch.bool)
    mask[0, 1] = True
    advantages, returns = gae(torch.ones(2, 3), torch.ones(2, 3), mask, gamma=1.0, lam=1.0)
    assert advantages[1].tolist() == returns[1].tolist() == [0.0, 0.0, 0.0]
