"""Pair losses against the formula written out in float64."""

import math

import pytest
import torch

from trellis.losses.reward import bradley_terry, centering


def test_bradley_terry_is_minus_log_sigmoid_of_the_difference_beyond_the_margin():
    chosen = torch.tensor([1.5, -2.0, 0.3], dtype=torch.float64)
    rejected = torch.tensor([0.5, 1.0, 0.3], dtype=torch.float64)
    margin = torch.tensor([0.25, 0.0, 2.0], dtype=torch.float64)
    expected = [math.log(1 + math.exp(-x)) for x in (0.75, -3.0, -2.0)]
    assert bradley_terry(chosen, rejected, margin).tolist() == pytest.approx(expected, abs=1e-15)
    assert bradley_terry(chosen, rejected)[2].item() == pytest.approx(math.log(2), abs=1e-15)


def test_bradley_terrys_slope_is_the_probability_of_the_wrong_order():
    chosen = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    bradley_terry(chosen, rejected, 0.1).sum().backward()
    wrong = 1 / (1 + math.exp(-0.7))
    assert chosen.grad.item() == pytest.approx(-wrong, abs=1e-15)
    assert rejected.grad.item() == pytest.approx(wrong, abs=1e-15)


def test_bradley_terry_is_finite_at_the_extremes():
    far = bradley_terry(torch.tensor([1e4, -1e4]), torch.tensor([-1e4, 1e4]))
    assert far.tolist() == [0.0, 2e4]


def test_centering_is_zero_only_for_opposite_scores():
    chosen, rejected = torch.tensor([1.0, 2.0, -0.5]), torch.tensor([-1.0, 1.0, -0.5])
    assert centering(chosen, rejected).tolist() == [0.0, 9.0, 1.0]


@pytest.mark.parametrize("agreed", [0.6, 0.75, 0.99])
def test_where_people_disagree_the_best_difference_is_the_log_odds(agreed):
    difference = torch.tensor([math.log(agreed / (1 - agreed))], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    loss = agreed * bradley_terry(difference, zero) + (1 - agreed) * bradley_terry(zero, difference)
    (slope,) = torch.autograd.grad(loss.sum(), difference)
    assert slope.item() == pytest.approx(0, abs=1e-15)
    entropy = -agreed * math.log(agreed) - (1 - agreed) * math.log(1 - agreed)
    assert loss.item() == pytest.approx(entropy, abs=1e-15)


def test_bradley_terry_leaves_a_common_shift_open_and_centering_settles_it():
    chosen, rejected = torch.tensor([1.3, 0.2]), torch.tensor([-0.4, 0.9])
    shift = torch.tensor(3.0, requires_grad=True)
    pair = bradley_terry(chosen + shift, rejected + shift)
    torch.testing.assert_close(pair, bradley_terry(chosen, rejected))
    (slope,) = torch.autograd.grad(pair.sum(), shift)
    assert slope.item() == pytest.approx(0, abs=1e-6)
    best = torch.tensor(-(chosen + rejected).mean().item() / 2, requires_grad=True)
    (slope,) = torch.autograd.grad(centering(chosen + best, rejected + best).sum(), best)
    assert slope.item() == pytest.approx(0, abs=1e-5)
