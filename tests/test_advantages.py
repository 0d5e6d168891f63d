"""Advantages: GAE against a double loop, whitening against its definition, scores on the token that earned them; those of groups
against loops over numbers."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trellis.advantages import (
    discounted_sum,
    gae,
    group_normalized,
    group_statistics,
    last_token,
    leave_one_out,
    moments,
    normalize_then_sum,
    place_score,
    standardized,
    top_entropy_mask,
    whiten,
)
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


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_gae_is_the_weighted_mean_of_n_step_advantages(lam):
    """Schulman et al. 2016, eq. 16, from its definition: weights (1 − λ)λ^(n−1), the rest on the advantage that sees the end."""
    length, gamma = 6, 0.9
    rewards, values = torch.randn(2, length, dtype=torch.float64).tolist()
    found, _ = gae(
        torch.tensor([rewards]).double(),
        torch.tensor([values]).double(),
        torch.ones(1, length, dtype=torch.bool),
        gamma=gamma,
        lam=lam,
    )
    for t in range(length):
        expected, left = 0.0, length - t
        for n in range(1, left + 1):
            ahead = gamma**n * values[t + n] if n < left else 0.0
            advantage = sum(gamma**k * rewards[t + k] for k in range(n)) + ahead - values[t]
            expected += (lam ** (n - 1) * (1 - lam) if n < left else lam ** (n - 1)) * advantage
        assert found[0, t].item() == pytest.approx(expected, abs=1e-5)


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


def test_whitening_forgets_scale_and_shift_and_without_the_shift_keeps_the_mean():
    """x/σ + μ(1 − 1/σ) where the mean is kept: every entry moves by the same, also those that were 0."""
    x, mask = torch.randn(3, 7, dtype=torch.float64), torch.rand(3, 7) > 0.3
    torch.testing.assert_close(whiten(5 * x + 2, mask), whiten(x, mask))
    mean, sigma = x[mask].mean(), x[mask].std()
    kept = whiten(x, mask, shift_mean=False)[mask]
    torch.testing.assert_close(kept, x[mask] / sigma + mean * (1 - 1 / sigma))
    torch.testing.assert_close(kept.mean(), mean)


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


def naive_group(rewards, group, applies):
    """{row: (rewards of its group that count)}."""
    return [[r for r, g, a in zip(rewards, group, applies, strict=True) if g == own and a] for own in group]


def spread_of(values):
    return statistics.stdev(values) if len(values) > 1 else 0.0


def naive_normalized(rewards, group, applies, scale="group"):
    counted = [r for r, a in zip(rewards, applies, strict=True) if a]
    found = []
    for r, a, own in zip(rewards, applies, naive_group(rewards, group, applies), strict=True):
        if not a:
            found.append(0.0)
            continue
        divisor = {"group": spread_of(own) + 1e-4, "batch": spread_of(counted) + 1e-4, "none": 1.0}[scale]
        found.append((r - statistics.fmean(own)) / divisor)
    return found


def naive_leave_one_out(rewards, group, applies):
    found = []
    for i, (r, a) in enumerate(zip(rewards, applies, strict=True)):
        others = [other for j, other in enumerate(rewards) if j != i and group[j] == group[i] and applies[j]]
        found.append(r - statistics.fmean(others) if a and others else 0.0)
    return found


ragged = st.lists(
    st.tuples(st.floats(-100, 100), st.integers(-2, 3), st.booleans()), min_size=1, max_size=14
).map(lambda rows: tuple(zip(*rows, strict=True)))


def tensors(rewards, group, applies):
    """Where no reward applies there is a NaN, as reward functions leave it."""
    values = [r if a else math.nan for r, a in zip(rewards, applies, strict=True)]
    return torch.tensor(values, dtype=torch.float64), torch.tensor(group), torch.tensor(applies)


@settings(max_examples=100, deadline=None)
@given(rows=ragged, scale=st.sampled_from(["group", "batch", "none"]), told=st.booleans())
def test_group_advantages_are_the_loops(rows, scale, told):
    rewards, group, applies = tensors(*rows)
    known = applies if told else None
    found = group_normalized(rewards, group, scale=scale, applies=known)
    want = torch.tensor(
        naive_normalized(rewards.tolist(), group.tolist(), applies.tolist(), scale), dtype=torch.float64
    )
    torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        leave_one_out(rewards, group, known), torch.tensor(naive_leave_one_out(*rows)).double()
    )
    mean, std = group_statistics(rewards, group, known)
    for i, own in enumerate(naive_group(*rows)):
        assert mean[i].item() == pytest.approx(statistics.fmean(own) if own else 0.0, abs=1e-9)
        assert std[i].item() == pytest.approx(spread_of(own), rel=1e-6, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(rows=ragged, seed=st.integers(0, 99))
def test_the_order_of_samples_changes_nothing(rows, seed):
    rewards, group, applies = tensors(*rows)
    order = torch.randperm(len(rewards), generator=torch.Generator().manual_seed(seed))
    for of in (group_normalized, leave_one_out):
        found = of(rewards[order], group[order], applies=applies[order])
        torch.testing.assert_close(found, of(rewards, group, applies=applies)[order], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e8 + 0.1, -7.0])
def test_a_group_that_agrees_or_is_alone_has_no_advantage(scale, value):
    """Exactly 0, whatever the mean rounds to; the rows beside it keep theirs."""
    rewards = torch.tensor([value, value, value, 5.0, 1.0, 2.0], dtype=torch.float64)
    group = torch.tensor([0, 0, 0, 1, 2, 2])
    found = group_normalized(rewards, group, scale=scale)
    assert found[:4].tolist() == [0.0] * 4
    assert found[4] < 0 < found[5]
    assert leave_one_out(rewards, group).tolist() == [0.0, 0.0, 0.0, 0.0, -1.0, 1.0]


def test_leave_one_out_by_hand():
    """Rewards 1, 2, 6: against the means 4, 3½, 1½ of the others; a row without a verdict is nobody's other."""
    rewards, group = torch.tensor([1.0, 2.0, math.nan, 6.0]), torch.zeros(4, dtype=torch.long)
    assert leave_one_out(rewards, group).tolist() == [-3.0, -1.5, 0.0, 4.5]


def test_where_nothing_applies_everything_is_zero():
    rewards, group = torch.full((3,), math.nan), torch.tensor([0, 0, 1])
    for scale in ("group", "batch", "none"):
        assert group_normalized(rewards, group, scale=scale).tolist() == [0.0] * 3
    assert leave_one_out(rewards, group).tolist() == [0.0] * 3
    assert [x.tolist() for x in group_statistics(rewards, group)] == [[0.0] * 3] * 2
    assert standardized(rewards).tolist() == [0.0] * 3
    assert normalize_then_sum(rewards[:, None], [1.0], group).tolist() == [0.0] * 3


def test_float32_rewards_far_from_zero_keep_their_digits():
    rewards = torch.tensor([1e6, 1e6 + 1, 1e6 + 2])
    found = group_normalized(rewards, torch.zeros(3, dtype=torch.long))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor([-0.9999, 0.0, 0.9999]))


def test_bad_group_arguments_are_named():
    with pytest.raises(ValueError, match="scale='std' is not known; expected one of group, batch, none"):
        group_normalized(torch.zeros(2), torch.zeros(2, dtype=torch.long), scale="std")
    with pytest.raises(ValueError, match=r"must be \[B\], found \(2,\) and \(3,\)"):
        leave_one_out(torch.zeros(2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"1 weights for rewards of shape \(3, 2\); expected \[B, F\]"):
        normalize_then_sum(torch.zeros(3, 2), [1.0], torch.zeros(3, dtype=torch.long))


@settings(max_examples=50, deadline=None)
@given(rows=ragged, others=st.lists(st.one_of(st.none(), st.floats(-9, 9)), min_size=14, max_size=14))
def test_normalize_then_sum_is_the_loops(rows, others):
    first, group, _ = tensors(*rows)
    second = [math.nan if x is None else x for x in others[: len(first)]]
    per_function = torch.stack([first, torch.tensor(second, dtype=torch.float64)], dim=1)
    weights = (2.0, -0.5)
    sums, counts = [0.0] * len(first), [False] * len(first)
    for column, weight in enumerate(weights):
        values = per_function[:, column].tolist()
        known = [not math.isnan(v) for v in values]
        clean = [v if k else 0.0 for v, k in zip(values, known, strict=True)]
        own = naive_normalized(clean, group.tolist(), known, "group")
        sums = [s + weight * x for s, x in zip(sums, own, strict=True)]
        counts = [c or k for c, k in zip(counts, known, strict=True)]
    want = naive_normalized(sums, [0] * len(sums), counts, "group")
    found = normalize_then_sum(per_function, torch.tensor(weights), group)
    torch.testing.assert_close(found, torch.tensor(want, dtype=torch.float64), rtol=1e-5, atol=1e-6)


def test_rewards_normalised_apart_keep_apart_what_their_sum_throws_together():
    """Two functions of very different size: a sum sees the large one alone."""
    group = torch.zeros(4, dtype=torch.long)
    small, large = torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1e4, 1e4])
    apart = normalize_then_sum(torch.stack([small, large], 1), [1.0, 1.0], group)
    assert apart[0].item() - apart[1].item() == pytest.approx(apart[2].item() - apart[0].item(), abs=1e-3)
    together = group_normalized(small + large, group)
    assert together[0].item() - together[1].item() < 1e-3


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=12),
    quantile=st.sampled_from([0.0, 0.2, 0.25, 0.5, 0.6, 1.0]),
)
def test_the_most_uncertain_tokens_are_kept(values, quantile):
    entropy = torch.tensor([[float(v) for v, _ in values]])
    mask = torch.tensor([[m for _, m in values]])
    kept = top_entropy_mask(entropy, mask, quantile)
    inside = sorted((v for v, m in values if m), reverse=True)
    number = max(1, math.ceil(quantile * len(inside) - 1e-9))
    assert kept.dtype == torch.bool
    for t, (v, m) in enumerate(values):
        better = sum(other > v for other in inside)
        assert bool(kept[0, t]) == (m and better < number)


def test_a_share_of_a_whole_number_is_that_number_and_no_share_is_refused():
    entropy, mask = torch.arange(5.0)[None], torch.ones(1, 5, dtype=torch.bool)
    assert top_entropy_mask(entropy, mask, 0.2).tolist() == [[False] * 4 + [True]]
    many = torch.arange(100.0)[None]
    assert top_entropy_mask(many, many >= 0, 0.07).sum() == 7
    with pytest.raises(ValueError, match="top_entropy_quantile=1.2 is no share; write a number from 0 to 1"):
        top_entropy_mask(entropy, mask, 1.2)
