"""f-divergences and weights: formulas by hand, their limits, and their ends."""

import math

import pytest
import torch

from trellis.losses.divergence import DIVERGENCES, divergence
from trellis.losses.weights import length_desensitised, on_policy_weight

POINTS = [-3.0, -0.5, 0.0, 0.4, 2.0]
FORMULAS = {
    "reverse_kl": lambda u: math.log(u),
    "forward_kl": lambda u: 1 - 1 / u,
    "js_divergence": lambda u: math.log(2 * u / (1 + u)),
    "alpha_divergence": lambda u: (1 - u**-0.7) / 0.7,
}


def test_every_divergence_is_tested():
    assert set(FORMULAS) == set(DIVERGENCES)


@pytest.mark.parametrize("name", FORMULAS)
def test_values_and_slopes(name):
    x = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
    y = divergence(name, 0.7)(x)
    want = torch.tensor([FORMULAS[name](math.exp(p)) for p in POINTS], dtype=torch.float64)
    torch.testing.assert_close(y.detach(), want)
    y.sum().backward()
    h = 1e-6
    slopes = [(FORMULAS[name](math.exp(p + h)) - FORMULAS[name](math.exp(p - h))) / (2 * h) for p in POINTS]
    torch.testing.assert_close(x.grad, torch.tensor(slopes, dtype=torch.float64), rtol=1e-6, atol=1e-8)
    assert y.detach()[2] == 0


GENERATORS = {
    "reverse_kl": lambda u: u * math.log(u),
    "forward_kl": lambda u: -math.log(u),
    "js_divergence": lambda u: u * math.log(u) - (u + 1) * math.log((u + 1) / 2),
    "alpha_divergence": lambda u: (u ** (1 - 0.7) - (1 - 0.7) * u - 0.7) / (0.7 * (0.7 - 1)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_they_are_the_slopes_of_their_generators_up_to_a_constant(name):
    """A divergence is Σ π_ref f(π/π_ref), f convex with f(1) = 0."""
    f, h = GENERATORS[name], 1e-5
    assert f(1.0) == pytest.approx(0.0, abs=1e-15)
    points = [math.exp(p) for p in POINTS]
    slopes = [(f(u + h) - f(u - h)) / (2 * h) for u in points]
    found = divergence(name, 0.7)(torch.tensor(POINTS, dtype=torch.float64)).tolist()
    apart = [a - b for a, b in zip(slopes, found, strict=True)]
    assert apart == pytest.approx([apart[2]] * len(apart), abs=1e-6)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_finite_and_rising_at_the_ends(name, alpha):
    x = torch.tensor([-1000.0, -50.0, 50.0, 1000.0], requires_grad=True)
    y = divergence(name, alpha)(x)
    y.sum().backward()
    assert bool(y.isfinite().all())
    assert bool((x.grad.isfinite() & (x.grad >= 0)).all())
    assert bool((x.grad[:2] > 0).all())


def test_limits_of_alpha():
    x = torch.tensor(POINTS, dtype=torch.float64)
    torch.testing.assert_close(divergence("alpha_divergence", 0.0)(x), x)
    torch.testing.assert_close(divergence("alpha_divergence", 1e-9)(x), x, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(divergence("alpha_divergence", 1.0)(x), divergence("forward_kl", 0)(x))


def test_an_unknown_divergence_is_refused():
    with pytest.raises(ValueError, match="f_divergence_type='kl' is not known; expected one of"):
        divergence("kl", 1.0)


def test_what_only_the_longer_answer_has_counts_less():
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0]], dtype=torch.bool)
    weight = length_desensitised(mask, torch.tensor([2, 4]), 0.25)
    assert weight.tolist() == [[0, 0, 1, 1, 0.25, 0.25], [0, 0, 1, 1, 0, 0]]


def test_alpha_one_is_the_mask_itself():
    mask = torch.rand(4, 9) < 0.5
    assert torch.equal(length_desensitised(mask, torch.tensor([1, 2, 3, 0]), 1.0), mask.float())


def test_on_policy_weight_is_the_papers():
    logits = torch.randn(2, 3, 5, dtype=torch.float64)
    tokens = torch.tensor([[0, 3, 1], [4, 2, 2]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]], dtype=torch.float64)
    p = logits.softmax(-1)
    logps = p.gather(-1, tokens[..., None])[..., 0].log()
    half = (2 * logits).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    found = on_policy_weight(logps * mask, half * mask, torch.tensor([3]), torch.tensor([2]))
    adjusted = (logps - (p**2).sum(-1).log()) * mask
    want = math.exp(float(adjusted[0].sum() / 3 + adjusted[1].sum() / 2))
    assert float(found) == pytest.approx(min(1.0, want), rel=1e-9)


def test_a_weight_is_at_most_one():
    likely = on_policy_weight(torch.full((2, 1), -3.0), torch.zeros(2, 1), torch.ones(1), torch.ones(1))
    assert float(likely) == 1.0
