"""CPO, SimPO, AlphaPO and ORPO against their papers' formulas in plain Python floats, gradients included; then the ends of the
range."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trellis.losses.binding import bound, knobs_of
from trellis.losses.preference import bind
from trellis.losses.reference_free import (
    CPO_LOSSES,
    STEEPEST,
    alpha_reward,
    cpo_loss,
    log_odds,
    log_odds_ratio,
)
from trellis.types import Pair

BETA, GAMMA, E = 0.3, 0.7, 0.1
KNOBS = {"beta": BETA, "simpo_gamma": GAMMA, "label_smoothing": E}
CHOSEN, REJECTED = [-1.5, -0.2, -3.0, -2.0], [-2.5, -0.9, -0.4, -2.0]


def nls(x):
    return math.log(1 + math.exp(-x))


def smooth(z):
    return (1 - E) * nls(z) + E * nls(-z)


FORMULAS = {
    "sigmoid": lambda c, r: smooth(BETA * (c - r)),
    "hinge": lambda c, r: max(0.0, 1 - BETA * (c - r)),
    "ipo": lambda c, r: (c - r - 1 / (2 * BETA)) ** 2,
    "simpo": lambda c, r: smooth(BETA * (c - r) - GAMMA),
}


def double(values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def loss_of(name):
    return bound(CPO_LOSSES[name].function, KNOBS, name)


def slopes(formula, *at, h=1e-6):
    """Central differences in each argument."""
    moved = [[x + h * (i == j) for j, x in enumerate(at)] for i in range(len(at))]
    back = [[x - h * (i == j) for j, x in enumerate(at)] for i in range(len(at))]
    return [(formula(*a) - formula(*b)) / (2 * h) for a, b in zip(moved, back, strict=True)]


def test_every_filed_loss_has_a_formula_here():
    assert set(FORMULAS) == set(CPO_LOSSES)


@pytest.mark.parametrize("name", CPO_LOSSES)
def test_values_and_gradients_are_the_papers(name):
    chosen, rejected = double(CHOSEN, True), double(REJECTED, True)
    losses = loss_of(name)(chosen, rejected)
    losses.sum().backward()
    for i, (c, r) in enumerate(zip(CHOSEN, REJECTED, strict=True)):
        assert losses[i].item() == pytest.approx(FORMULAS[name](c, r), abs=1e-12)
        assert [chosen.grad[i].item(), rejected.grad[i].item()] == pytest.approx(
            slopes(FORMULAS[name], c, r), abs=1e-6
        )


def test_only_ipo_and_simpo_are_per_token():
    assert {name for name, loss in CPO_LOSSES.items() if loss.per_token} == {"ipo", "simpo"}


@pytest.mark.parametrize("name", CPO_LOSSES)
@given(c=st.floats(-1e3, 0), r=st.floats(-1e3, 0))
def test_losses_and_slopes_are_finite_and_point_the_right_way(name, c, r):
    chosen, rejected = torch.tensor([c], requires_grad=True), torch.tensor([r], requires_grad=True)
    loss = bound(CPO_LOSSES[name].function, {**KNOBS, "label_smoothing": 0.0}, name)(chosen, rejected)
    loss.sum().backward()
    assert torch.isfinite(torch.stack([loss.detach(), chosen.grad, rejected.grad])).all()
    assert chosen.grad.item() == -rejected.grad.item()
    if name != "ipo":  # which also pulls together what is too far apart
        assert chosen.grad.item() <= 0 <= loss.item()


def test_a_pair_without_a_difference_costs_what_the_formula_says():
    even = double([-4.0])
    plain = {**KNOBS, "label_smoothing": 0.0}
    costs = {n: bound(f.function, plain, n)(even, even).item() for n, f in CPO_LOSSES.items()}
    assert costs == pytest.approx(
        {"sigmoid": math.log(2), "hinge": 1.0, "ipo": 1 / (4 * BETA**2), "simpo": nls(-GAMMA)}, abs=1e-12
    )


def test_the_comparison_is_dpos_where_every_answer_is_as_likely_under_the_reference():
    chosen, rejected, length = double(CHOSEN), double(REJECTED), torch.ones(len(CHOSEN), dtype=torch.float64)
    for name in ("sigmoid", "hinge", "ipo"):  # one token each, so that averages are sums
        for constant in (-40.0, -3.0):
            pair = Pair(chosen - constant, rejected - constant, chosen, rejected, length, length)
            torch.testing.assert_close(loss_of(name)(chosen, rejected), bind([name], None, KNOBS)(pair))


def test_dpo_against_an_ideal_reference_lies_below_the_comparison_up_to_a_constant():
    """The reference of CPO's theorem writes the chosen answer alone, so its log-ratio to the rejected one is a number b ≤ 0."""
    plain = bound(CPO_LOSSES["sigmoid"].function, {**KNOBS, "label_smoothing": 0.0}, "sigmoid")
    for b in (-0.1, -5.0, -80.0):
        chosen = torch.linspace(-60, -1, 40, dtype=torch.float64)
        rejected = chosen.flip(0)
        ideal = plain(chosen + b, rejected)
        assert bool((ideal + BETA * b <= plain(chosen, rejected)).all())


def test_a_reference_that_is_uniform_over_tokens_speaks_for_the_longer_answer():
    """It is no constant: an answer with one more token has log V less."""
    lengths, vocabulary = (double([5.0]), double([3.0])), math.log(1000)
    ratios = [x + n * vocabulary for x, n in zip((double([-20.0]), double([-12.0])), lengths, strict=True)]
    pair = Pair(*ratios, double([-20.0]), double([-12.0]), *lengths)
    plain = bound(CPO_LOSSES["sigmoid"].function, KNOBS, "sigmoid")
    shifted = plain(double([-20.0 + 2 * vocabulary]), double([-12.0]))
    torch.testing.assert_close(bind(["sigmoid"], None, KNOBS)(pair), shifted)


def test_simpo_weighs_a_token_by_its_answers_length_and_by_how_far_the_margin_is():
    tokens = {side: torch.full((n,), x, dtype=torch.float64, requires_grad=True) for side, n, x in
              (("chosen", 4, -0.5), ("rejected", 2, -0.9))}  # fmt: skip
    means = [tokens[side].mean()[None] for side in ("chosen", "rejected")]
    bound(CPO_LOSSES["simpo"].function, {**KNOBS, "label_smoothing": 0.0}, "simpo")(*means).sum().backward()
    wrong = BETA / (1 + math.exp(BETA * 0.4 - GAMMA))
    assert tokens["chosen"].grad.tolist() == pytest.approx([-wrong / 4] * 4)
    assert tokens["rejected"].grad.tolist() == pytest.approx([wrong / 2] * 2)


@pytest.mark.parametrize("alpha", [0.25, 1.0, -0.5])
def test_alpha_reward_is_the_papers(alpha):
    at = double(CHOSEN, True)
    found = alpha_reward(at, alpha)
    found.sum().backward()
    for i, x in enumerate(CHOSEN):
        assert found[i].item() == pytest.approx((1 - math.exp(x) ** -alpha) / alpha, abs=1e-12)
        assert at.grad[i].item() == pytest.approx(math.exp(x) ** -alpha, abs=1e-12)


def test_alpha_reward_goes_to_the_logarithm():
    at = double(CHOSEN)
    assert torch.equal(alpha_reward(at, 0.0), at)
    torch.testing.assert_close(alpha_reward(at, 1e-9), at, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alpha", [0.01, 0.25, 1.0, -1.0])
def test_alpha_reward_is_finite_and_rising_down_to_minus_a_thousand(alpha, dtype):
    at = torch.linspace(-1000, 0, 2001, dtype=dtype, requires_grad=True)
    found = alpha_reward(at, alpha)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(at.grad).all()
    if alpha > 0:
        assert (found.diff() > 0).all()
        assert (at.grad > 0).all()
    loss = loss_of("simpo")(found, found.flip(0).detach())
    assert torch.isfinite(loss).all()


def test_alpha_reward_has_no_step_where_the_line_begins():
    corner = -STEEPEST / 0.5
    at = double([corner - 1e-7, corner + 1e-7], True)
    found = alpha_reward(at, 0.5)
    found.sum().backward()
    assert found[0].item() == pytest.approx(found[1].item(), rel=1e-6)
    assert at.grad[0].item() == pytest.approx(at.grad[1].item(), rel=1e-6)


def test_log_odds_and_their_slope_are_the_papers():
    at = double([-5.0, -0.7, -0.6, -0.01], True)
    found = log_odds(at)
    found.sum().backward()
    for i, x in enumerate(at.tolist()):
        assert found[i].item() == pytest.approx(math.log(math.exp(x) / (1 - math.exp(x))), abs=1e-11)
        assert at.grad[i].item() == pytest.approx(1 / (1 - math.exp(x)), rel=1e-11)


def test_odds_of_an_unlikely_answer_are_its_probability():
    at = double([-30.0, -12.0, -3.0])
    assert (log_odds(at) - at).tolist() == pytest.approx(
        [0.0, math.exp(-12.0), -math.log(1 - math.exp(-3.0))], abs=1e-9
    )


def test_log_odds_are_further_apart_than_log_probabilities():
    one, other = double(CHOSEN), double(REJECTED)
    assert bool(((log_odds(one) - log_odds(other)).abs() >= (one - other).abs()).all())


def test_log_odds_keep_their_digits_in_float32():
    at = -torch.logspace(-5, 1.9, 60, dtype=torch.float64)
    single = at.float()
    found = log_odds(single).double() - single.double()  # −log(1 − p̄): the part that cancels
    torch.testing.assert_close(found, -torch.log(-torch.expm1(single.double())), rtol=1e-5, atol=4e-6)
    assert (log_odds(single).diff() < 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_odds_are_finite_at_certainty_and_impossibility(dtype):
    ends = [0.0, -1e-12, -1e-6, -1e-3, -1.0, -1000.0]
    for c in ends:
        for r in ends:
            pair = [torch.tensor([x], dtype=dtype, requires_grad=True) for x in (c, r)]
            better, ratio = log_odds_ratio(*pair)
            (-better).sum().backward()
            values = torch.stack([better.detach(), ratio.detach(), *[x.grad for x in pair]])
            assert torch.isfinite(values).all(), (c, r)
            assert pair[0].grad <= 0 <= pair[1].grad, (c, r)


def test_orpos_gradient_does_not_vanish_for_a_wrong_pair():
    chosen, rejected = double([-3.0], True), double([-0.5], True)
    (-log_odds_ratio(chosen, rejected)[0]).sum().backward()
    wrong = 1 / (1 + math.exp(log_odds(chosen).item() - log_odds(rejected).item()))
    assert chosen.grad.item() == pytest.approx(-wrong / (1 - math.exp(-3.0)), abs=1e-12)
    assert rejected.grad.item() == pytest.approx(wrong / (1 - math.exp(-0.5)), abs=1e-12)


def test_a_loss_with_a_new_knob_is_one_function():
    @cpo_loss(per_token=True)
    def squared(chosen, rejected, *, beta, slack=2.0):
        """(βΔ − slack)²."""
        return (beta * (chosen - rejected) - slack) ** 2

    try:
        assert knobs_of(squared) == ("beta", "slack")
        found = bound(CPO_LOSSES["squared"].function, {"beta": 0.5}, "squared")(double([1.0]), double([0.0]))
        assert found.item() == pytest.approx((0.5 - 2.0) ** 2)
    finally:
        del CPO_LOSSES["squared"]
    with pytest.raises(ValueError, match="takes \\['beta'\\], which the config does not have"):
        bound(squared, {}, "squared")
