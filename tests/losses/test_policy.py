"""PPO's losses and KL estimators against numbers worked out by hand, and against properties of the papers."""

import math

import pytest
import torch
from torch import tensor

from trellis.losses.policy import KL_ESTIMATORS, clipped_surrogate, clipped_value, k1, k3


def column(*values):
    return tensor([list(values)], dtype=torch.float64)


def test_kl_estimators_by_hand():
    logps, ref = column(math.log(0.5), math.log(0.2)), column(math.log(0.25), math.log(0.4))
    torch.testing.assert_close(k1(logps, ref), column(math.log(2), -math.log(2)))
    # π_ref/π − 1 − log(π_ref/π): 0.5 − 1 + log 2 and 2 − 1 − log 2
    torch.testing.assert_close(k3(logps, ref), column(math.log(2) - 0.5, 1 - math.log(2)))


def test_the_registry_holds_the_estimators_that_the_config_offers():
    from dataclasses import fields

    from trellis import PPOConfig

    choices = {f.name: f.metadata.get("choices") for f in fields(PPOConfig)}["kl_estimator"]
    assert set(choices) == set(KL_ESTIMATORS)


@pytest.mark.parametrize("estimator", [k1, k3])
def test_kl_estimators_are_unbiased(estimator):
    """Σ_x π(x) k(x) is KL(π ‖ π_ref), exactly, over a vocabulary."""
    torch.manual_seed(3)
    p, q = torch.randn(2, 7, dtype=torch.float64).log_softmax(-1)
    exact = (p.exp() * (p - q)).sum()
    torch.testing.assert_close((p.exp() * estimator(p, q)).sum(), exact)


def test_k3_is_never_negative_and_exact_near_zero():
    torch.manual_seed(0)
    a, b = torch.randn(2, 1000, dtype=torch.float64)
    assert (k3(a, b) >= 0).all()
    tiny = torch.full((1,), 1e-5, dtype=torch.float32)
    torch.testing.assert_close(k3(tiny, torch.zeros(1)), tensor([0.5e-10]), rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, 0.0),
        (1.1, 2.0, -2.2, 0.0),
        (1.5, 2.0, -2.4, 1.0),  # the gain is bounded at 1.2
        (0.5, 2.0, -1.0, 0.0),  # a loss is not
        (1.5, -2.0, 3.0, 0.0),
        (0.5, -2.0, 1.6, 1.0),
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, loss, clipped):
    """Schulman et al. 2017, eq. 7 and figure 1, with ε = 0.2."""
    found = clipped_surrogate(column(math.log(ratio) - 3.0), column(-3.0), column(advantage), cliprange=0.2)
    for x, expected in zip(found, (loss, ratio, clipped), strict=True):
        torch.testing.assert_close(x.double(), column(expected))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"), [(5.0, -1.0, 3.0), (2.0, -1.0, 2.0), (5.0, 1.0, -1.2)]
)
def test_dual_clip_bounds_only_what_a_negative_advantage_costs(ratio, advantage, loss):
    """Ye et al. 2020, eq. 5, with c = 3."""
    found, _, _ = clipped_surrogate(
        column(math.log(ratio)), column(0.0), column(advantage), cliprange=0.2, dual_clip=3.0
    )
    torch.testing.assert_close(found, column(loss))


def test_the_gradient_vanishes_exactly_where_the_bound_counts():
    logps = column(math.log(1.5), math.log(1.1), math.log(0.5), math.log(0.5)).requires_grad_()
    advantages = column(1.0, 1.0, -1.0, 1.0)
    loss, ratio, clipped = clipped_surrogate(logps, column(0.0, 0.0, 0.0, 0.0), advantages, cliprange=0.2)
    loss.sum().backward()
    assert clipped.tolist() == [[1.0, 0.0, 1.0, 0.0]]
    torch.testing.assert_close(logps.grad, -(advantages * ratio * (1 - clipped)).detach())


def test_at_ratio_one_the_gradient_is_that_of_the_policy_gradient():
    logps = column(-1.0, -2.0).requires_grad_()
    advantages = column(0.7, -0.3)
    clipped_surrogate(logps, logps.detach(), advantages, cliprange=0.2)[0].sum().backward()
    torch.testing.assert_close(logps.grad, -advantages)


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "clipped"),
    [
        (1.0, 1.0, 3.0, 2.0, 0.0),  # ½ · 2²
        (2.0, 1.0, 3.0, 0.5 * 1.8**2, 1.0),  # clipped to 1.2, which is further away
        (0.5, 1.0, 3.0, 0.5 * 2.5**2, 0.0),  # clipped to 0.8, which is nearer: the larger error counts
        (1.1, 1.0, 3.0, 0.5 * 1.9**2, 0.0),
    ],
)
def test_clipped_value_by_hand(value, old, target, loss, clipped):
    found = clipped_value(column(value), column(old), column(target), cliprange_value=0.2)
    for x, expected in zip(found, (loss, clipped), strict=True):
        torch.testing.assert_close(x.double(), column(expected))


def test_the_value_gradient_is_the_error_or_nothing():
    """Nothing where the clipped error counts: the value is outside the range and beyond the return's side of it."""
    values = column(2.0, 0.5, 1.1).requires_grad_()
    old, returns = column(1.0, 1.0, 1.0), column(3.0, 3.0, 3.0)
    clipped_value(values, old, returns, cliprange_value=0.2)[0].sum().backward()
    torch.testing.assert_close(values.grad, column(0.0, -2.5, -1.9))


def test_losses_reduce_nothing():
    x = torch.randn(3, 5, dtype=torch.float64)
    assert all(y.shape == x.shape for y in clipped_surrogate(x, x, x, cliprange=0.2))
    assert all(y.shape == x.shape for y in clipped_value(x, x, x, cliprange_value=0.2))
