"""KTO and APO-zero on single answers against their papers' formulas, gradients included; the KL term; the balance of labels."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trellis.losses.binding import bound
from trellis.losses.preference import bind
from trellis.losses.unpaired import UNPAIRED_LOSSES, mismatch_kl, recommended_weights
from trellis.types import Pair

BETA, LIKED, DISLIKED, KL = 0.4, 1.5, 0.8, 0.6
KNOBS = {"beta": BETA, "desirable_weight": LIKED, "undesirable_weight": DISLIKED}
RATIOS, LABELS = [0.9, -1.1, 0.9, 0.0], [True, True, False, False]


def sg(x):
    return 1 / (1 + math.exp(-x))


FORMULAS = {
    "kto": lambda r, y: LIKED * (1 - sg(BETA * (r - KL))) if y else DISLIKED * (1 - sg(BETA * (KL - r))),
    "apo_zero_unpaired": lambda r, y: LIKED * (1 - sg(BETA * r)) if y else DISLIKED * sg(BETA * r),
}


def value(name, ratio, label, knobs=KNOBS, kl=KL):
    loss = UNPAIRED_LOSSES[name]
    extra = (torch.tensor(kl, dtype=ratio.dtype),) if loss.wants_kl else ()
    return bound(loss.function, knobs, name)(ratio, label, *extra)


def test_every_filed_loss_has_a_formula_here():
    assert set(FORMULAS) == set(UNPAIRED_LOSSES)
    assert [name for name, loss in UNPAIRED_LOSSES.items() if loss.wants_kl] == ["kto"]


@pytest.mark.parametrize("name", UNPAIRED_LOSSES)
def test_values_and_gradients_are_the_papers(name):
    ratio = torch.tensor(RATIOS, dtype=torch.float64, requires_grad=True)
    losses = value(name, ratio, torch.tensor(LABELS))
    losses.sum().backward()
    for i, (r, y) in enumerate(zip(RATIOS, LABELS, strict=True)):
        formula = FORMULAS[name]
        assert losses[i].item() == pytest.approx(formula(r, y), abs=1e-12)
        assert ratio.grad[i].item() == pytest.approx(
            (formula(r + 1e-6, y) - formula(r - 1e-6, y)) / 2e-6, abs=1e-6
        )


@pytest.mark.parametrize("name", UNPAIRED_LOSSES)
@given(ratio=st.floats(-1e3, 1e3), label=st.booleans())
def test_losses_stay_between_zero_and_the_weight_and_point_the_right_way(name, ratio, label):
    at = torch.tensor([ratio], requires_grad=True)
    loss = value(name, at, torch.tensor([label]))
    loss.sum().backward()
    assert 0 <= loss.item() <= (LIKED if label else DISLIKED) + 1e-6
    assert torch.isfinite(at.grad).all()
    assert at.grad.item() * (1 if label else -1) <= 0


@pytest.mark.parametrize("name", UNPAIRED_LOSSES)
def test_an_answer_as_likely_as_before_costs_half_its_weight(name):
    losses = value(name, torch.zeros(2), torch.tensor([True, False]), kl=0.0)
    assert losses.tolist() == pytest.approx([LIKED / 2, DISLIKED / 2])


@pytest.mark.parametrize("label", [True, False])
def test_an_answer_moves_most_where_it_is_as_likely_as_the_rest_and_hardly_far_from_there(label):
    def slope(x):
        at = torch.tensor([KL + x / BETA], dtype=torch.float64, requires_grad=True)
        value("kto", at, torch.tensor([label])).sum().backward()
        return at.grad.item()

    weight = LIKED if label else DISLIKED
    for x in (-30.0, -2.0, 0.0, 1.0, 30.0):
        want = weight * BETA * sg(x) * sg(-x)
        assert slope(x) == pytest.approx(-want if label else want, rel=1e-9)
    assert abs(slope(0.0)) == pytest.approx(weight * BETA / 4)


@pytest.mark.parametrize("liked_by", [0.2, 0.5])
def test_where_opinions_differ_the_weighted_majority_decides(liked_by):
    at = torch.linspace(-5, 5, 11, dtype=torch.float64)
    both = [value("kto", at, torch.full((11,), label)) for label in (True, False)]
    mean = liked_by * both[0] + (1 - liked_by) * both[1]
    falls = liked_by * LIKED > (1 - liked_by) * DISLIKED
    assert bool(((mean.diff() < 0) == falls).all())


def test_both_answers_of_a_pair_cost_what_apo_zero_asks_for_it():
    chosen, rejected = (torch.tensor(x, dtype=torch.float64) for x in ([0.9, -1.1], [0.2, 0.7]))
    plain = {**KNOBS, "desirable_weight": 1.0, "undesirable_weight": 1.0}
    apart = [
        value("apo_zero_unpaired", r, torch.tensor([y] * 2), plain)
        for r, y in ((chosen, True), (rejected, False))
    ]
    pair = Pair(chosen, rejected, chosen, rejected, torch.ones(2), torch.ones(2))
    torch.testing.assert_close(sum(apart), bind(["apo_zero"], None, {"beta": BETA})(pair))


def test_the_kl_term_is_a_mean_that_is_never_negative_and_carries_no_gradient():
    ratios = torch.tensor([0.5, -0.1, 0.8], requires_grad=True)
    found = mismatch_kl(ratios.sum(), 3)
    assert found.item() == pytest.approx(0.4)
    assert not found.requires_grad
    assert mismatch_kl(-ratios.sum(), 3).item() == 0.0


@pytest.mark.parametrize("counts", [(50, 50), (57, 43), (4, 3)])
def test_labels_in_balance_need_no_weights(counts):
    assert recommended_weights(*counts, 1.0, 1.0) is None


@pytest.mark.parametrize(
    ("liked", "disliked", "of_liked", "of_disliked"),
    [(90, 10, 1.0, 1.0), (10, 90, 1.0, 1.0), (30, 20, 0.5, 2.0)],
)
def test_recommended_weights_put_the_labels_in_balance(liked, disliked, of_liked, of_disliked):
    for_liked, for_disliked = recommended_weights(liked, disliked, of_liked, of_disliked)
    for ratio, w in zip((1.0, 4 / 3), for_liked, strict=True):
        assert w * liked / (of_disliked * disliked) == pytest.approx(ratio)
        assert recommended_weights(liked, disliked, w, of_disliked) is None
    for ratio, w in zip((4 / 3, 1.0), for_disliked, strict=True):
        assert of_liked * liked / (w * disliked) == pytest.approx(ratio)
        assert recommended_weights(liked, disliked, of_liked, w) is None
