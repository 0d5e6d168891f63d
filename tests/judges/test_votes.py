"""Win rates and their intervals, against numbers worked out by hand and properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trellis.judges.votes import WinRate, length_controlled_win_rate, win_rate

VOTE = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1), st.none())


def test_counts_ties_as_half_and_invalid_answers_not_at_all():
    found = win_rate([1, 1, 1, 0, 0.5, None, math.nan, 0.5])
    assert (found.wins, found.losses, found.ties, found.invalid, found.n) == (3, 1, 2, 2, 6)
    assert found.rate == pytest.approx(4 / 6)
    assert str(found).endswith("(3 wins, 1 losses, 2 ties, 2 invalid)")


@pytest.mark.parametrize(
    ("wins", "n", "low", "high"),
    [
        # (p + z²/2n ± z·sqrt(p(1−p)/n + z²/4n²)) / (1 + z²/n) with z = 1.959964, by hand.
        (8, 10, 0.490162, 0.943318),
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        (650, 1000, 0.619915, 0.678937),
    ],
)
def test_the_interval_of_plain_votes_is_wilsons(wins, n, low, high):
    found = win_rate([1.0] * wins + [0.0] * (n - wins))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)


def test_both_orders_of_a_pair_are_not_two_independent_votes():
    pairs = [1.0] * 12 + [0.0] * 8
    twice = [vote for vote in pairs for _ in range(2)]
    groups = [i for i in range(20) for _ in range(2)]
    # Agreeing orders say nothing new: V = 20/19 · Σ (2 (v − p))² / 40² = p(1−p)/19, as of 19 votes.
    z2, p, m = 1.959964**2, 0.6, 19
    half = math.sqrt(z2 * (p * (1 - p) / m + z2 / (4 * m * m))) / (1 + z2 / m)
    centre = (p + z2 / (2 * m)) / (1 + z2 / m)
    found = win_rate(twice, groups=groups)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert found.n == 40
    assert win_rate(twice).high < found.high


def test_groups_that_all_agree_count_once_each():
    found, plain = win_rate([1.0] * 20, groups=[i // 2 for i in range(20)]), win_rate([1.0] * 10)
    assert (found.low, found.high) == (plain.low, plain.high)


def test_a_judge_that_only_sees_the_place_gives_a_half():
    found = win_rate([1.0, 0.0] * 10, groups=[i // 2 for i in range(20)])
    assert found.rate == 0.5
    plain = win_rate([1.0, 0.0] * 10)
    assert (found.low, found.high) == (plain.low, plain.high)


def test_no_vote_is_no_rate():
    for found in (win_rate([None, None]), length_controlled_win_rate([None, None], [1, 2], [3, 4])):
        assert math.isnan(found.rate)
        assert (found.low, found.high, found.n, found.invalid) == (0.0, 1.0, 0, 2)


@pytest.mark.parametrize("vote", [-1, 2, 1.5])
def test_a_rank_that_is_no_vote_is_refused(vote):
    with pytest.raises(ValueError, match=f"vote 1 is {vote}, expected a number from 0"):
        win_rate([1, vote])


def test_lengths_and_groups_must_fit():
    with pytest.raises(ValueError, match="2 votes and 1 groups"):
        win_rate([1, 0], groups=["a"])
    with pytest.raises(ValueError, match="2 votes, 1 lengths and 2 other"):
        length_controlled_win_rate([1, 0], [1], [1, 2])
    with pytest.raises(ValueError, match="confidence"):
        win_rate([1, 0], confidence=95)


def swapped(found: WinRate) -> tuple[float, ...]:
    return (1 - found.rate, 1 - found.high, 1 - found.low, found.losses, found.wins)


def values(found: WinRate) -> tuple[float, ...]:
    return (found.rate, found.low, found.high, found.wins, found.losses)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(VOTE, st.integers(0, 30), st.integers(0, 30), st.integers(0, 4)), min_size=1, max_size=20
    )
)
def test_swapping_the_sides_turns_a_rate_round(rows):
    votes, a, b, groups = map(list, zip(*rows, strict=True))
    back = [None if vote is None else 1 - vote for vote in votes]
    for one, other in (
        (win_rate(votes, groups=groups), win_rate(back, groups=groups)),
        (length_controlled_win_rate(votes, a, b), length_controlled_win_rate(back, b, a)),
    ):
        assert values(other) == pytest.approx(swapped(one), abs=1e-6, nan_ok=True)
        if one.n:
            assert 0 <= one.low <= one.rate + 1e-12
            assert one.rate <= one.high + 1e-12 <= 1 + 1e-12


def test_intervals_hold_the_truth_as_often_as_they_say():
    generator = torch.Generator().manual_seed(0)
    held = {"plain": 0, "groups": 0, "length": 0}
    for _ in range(200):
        # 40 prompts with a rate of their own around 0.6, three answers each.
        rates = 0.6 + 0.3 * (torch.rand(40, generator=generator) - 0.5)
        samples = (torch.rand(40, 3, generator=generator) < rates[:, None]).double()
        both = samples[:, :1].repeat(1, 2)  # a judge that answers alike in both orders
        gaps = torch.randn(40, generator=generator).tolist()
        for name, found in (
            ("plain", win_rate(samples[:, 0].tolist())),
            ("groups", win_rate(both.flatten().tolist(), groups=[i // 2 for i in range(80)])),
            ("length", length_controlled_win_rate(samples[:, 0].tolist(), gaps, [0.0] * 40)),
        ):
            held[name] += found.low <= 0.6 <= found.high
    assert all(0.92 <= count / 200 <= 0.99 for count in held.values()), held


def test_equal_lengths_leave_the_plain_rate():
    votes = [1, 1, 0, 0.5, 1, 1, 0.9]
    found = length_controlled_win_rate(votes, [7] * 7, [5] * 7)
    assert found.rate == pytest.approx(win_rate(votes).rate, abs=1e-8)


def test_a_preference_for_length_is_taken_out():
    # The longer answer wins 3 of 4 times whoever wrote it; the first set's is longer in 160 of 200 pairs.
    longer, shorter = [1] * 120 + [0] * 40, [1] * 10 + [0] * 30
    votes = longer + shorter
    lengths = [20] * 160 + [10] * 40
    others = [10] * 160 + [20] * 40
    assert win_rate(votes).rate == 0.65
    found = length_controlled_win_rate(votes, lengths, others)
    assert found.rate == pytest.approx(0.5, abs=0.02)
    assert found.low < 0.5 < found.high
    exact = length_controlled_win_rate(votes, lengths, others, penalty=0)
    assert exact.rate == pytest.approx(0.5, abs=1e-6)


def test_the_fit_solves_its_equations():
    # Σ (v − p) = 0 and Σ x (v − p) = λ b, with x = tanh(Δ/σ): the optimum of the penalised likelihood.
    votes = [1, 0, 1, 1, 0.25, 0.5, 1, 0]
    lengths, others = [9, 3, 8, 4, 6, 2, 5, 1], [4, 5, 5, 5, 4, 5, 3, 4]
    rate = length_controlled_win_rate(votes, lengths, others, penalty=2.0).rate
    gap = torch.tensor(lengths).double() - torch.tensor(others).double()
    x = torch.tanh(gap / gap.std(correction=0))
    v = torch.tensor(votes).double()
    weights = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], lr=1, max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15)

    def loss():
        optimizer.zero_grad()
        z = weights[0] + weights[1] * x
        value = torch.nn.functional.binary_cross_entropy_with_logits(z, v, reduction="sum") + weights[1] ** 2
        value.backward()
        return value

    optimizer.step(loss)
    assert rate == pytest.approx(float(torch.sigmoid(weights[0].detach())), abs=1e-7)


def test_few_rows_stay_near_the_plain_rate_and_are_unsure():
    found = length_controlled_win_rate([1, 1, 0], [9, 8, 2], [4, 4, 5])
    assert 0.5 < found.rate < 0.75
    assert found.high - found.low > 0.6
    all_won = length_controlled_win_rate([1, 1, 1], [9, 8, 2], [4, 4, 5])
    assert all_won.rate == pytest.approx(1.0)
    assert all_won.low == pytest.approx(win_rate([1, 1, 1]).low, abs=1e-6)
