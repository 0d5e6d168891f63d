"""What losses on pairs aim at, on answers few enough to be written down: minima, gradients, a likelihood that falls."""

import math
from itertools import permutations

import pytest
import torch

from trellis.losses.divergence import DIVERGENCES, divergence
from trellis.losses.preference import bind
from trellis.types import Pair

BETA = 0.3
REWARDS = torch.tensor([0.1, -0.05, 0.12, 0.0], dtype=torch.float64)
REFERENCE = torch.tensor([0.4, 0.3, 0.1, 0.2], dtype=torch.float64)
FIRST, SECOND = torch.tensor(list(permutations(range(4), 2))).T


def pair(chosen, rejected):
    """Pairs of one-token answers with these log-ratios [P] (and as log-probabilities, for what asks for them)."""
    ones = torch.ones_like(chosen)
    return Pair(chosen, rejected, chosen, rejected, ones, ones)


def loss_of(name, z, **knobs):
    """The loss `name` of a pair whose chosen answer has the log-ratio z and whose rejected one has 0."""
    fields = {"beta": 1.0, "label_smoothing": 0.0, "discopop_tau": 0.05, **knobs}
    return bind([name], None, fields)(pair(z, torch.zeros_like(z)))


def slope(loss, at):
    """dloss/dz at a number."""
    z = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    loss(z).sum().backward()
    return float(z.grad)


def tilted():
    """(log π*, log Z) of the tilted reference π* = π_ref exp(r/β) / Z."""
    scores = REFERENCE.log() + REWARDS / BETA
    return scores.log_softmax(0), scores.logsumexp(0)


def test_no_policy_has_more_reward_minus_kl_than_the_tilted_reference():
    best, log_z = tilted()

    def value(logps):
        return float((logps.exp() * (REWARDS - BETA * (logps - REFERENCE.log()))).sum())

    assert value(best) == pytest.approx(BETA * float(log_z), rel=1e-12)
    for seed in range(20):
        other = torch.randn(
            4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
        ).log_softmax(0)
        behind = BETA * float((other.exp() * (other - best)).sum())
        assert value(best) - value(other) == pytest.approx(behind, rel=1e-9)
        assert behind > 0


def test_rewards_are_log_ratios_up_to_one_number_for_all_answers():
    best, log_z = tilted()
    torch.testing.assert_close(BETA * (best - REFERENCE.log()) + BETA * log_z, REWARDS)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_on_bradley_terry_pairs_dpo_ends_where_its_rewards_are_the_true_ones(name):
    """With reverse KL, at the tilted reference itself."""
    logits = REFERENCE.log().clone().requires_grad_(True)
    share = torch.sigmoid(REWARDS[FIRST] - REWARDS[SECOND])  # how often the first of the two wins
    objective = bind(["sigmoid"], None, {"beta": BETA, "label_smoothing": 0.0})
    change, optimizer = (
        divergence(name, 0.5),
        torch.optim.LBFGS([logits], line_search_fn="strong_wolfe", tolerance_change=0),
    )

    def rewards():
        return change(logits.log_softmax(0) - REFERENCE.log())

    def step():
        optimizer.zero_grad()
        found = rewards()
        loss = (share * objective(pair(found[FIRST], found[SECOND]))).sum()
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(step)
    found = BETA * rewards().detach()
    torch.testing.assert_close(found - found[3], REWARDS - REWARDS[3], rtol=0, atol=1e-6)
    if name == "reverse_kl":
        torch.testing.assert_close(logits.detach().log_softmax(0), tilted()[0], rtol=0, atol=1e-5)


def test_a_pair_counts_by_how_wrong_the_policy_is_about_it():
    for z in (-8.0, -1.0, 0.0, 1.0, 8.0):
        chosen, rejected = (
            torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (z + 2.0, 2.0)
        )
        bind(["sigmoid"], None, {"beta": BETA, "label_smoothing": 0.0})(
            pair(chosen, rejected)
        ).sum().backward()
        weight = BETA / (1 + math.exp(BETA * z))
        assert float(chosen.grad) == pytest.approx(-weight, rel=1e-12)
        assert float(rejected.grad) == pytest.approx(weight, rel=1e-12)


def test_the_margin_may_grow_while_the_chosen_answer_becomes_less_likely():
    """Three answers whose logits are one weight times a feature: what lifts the chosen one lifts the third more."""
    feature = torch.tensor([0.1, 0.0, 1.0], dtype=torch.float64)
    moved = {}
    for alpha in (0.0, 0.5):
        theta = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        before = (theta * feature).log_softmax(0)
        ratio = before - before.detach()
        loss = bind(["sigmoid"], None, {"beta": 1.0, "label_smoothing": 0.0})(
            pair(ratio[:1], ratio[1:2])
        ).sum()
        (loss - alpha * before[0]).backward()
        after = ((theta - 0.1 * theta.grad) * feature).log_softmax(0).detach()
        moved[alpha] = after - before.detach()
    assert moved[0.0][0] < 0
    assert moved[0.0][0] > moved[0.0][1]
    assert moved[0.5][0] > 0  # what rpo_alpha is for


@pytest.mark.parametrize("wins", [1.0, 0.8, 0.5])
def test_ipo_ends_at_a_margin_that_the_share_of_wins_decides(wins):
    end = (2 * wins - 1) / (2 * BETA)

    def loss(z):
        return wins * loss_of("ipo", z, beta=BETA) + (1 - wins) * loss_of("ipo", -z, beta=BETA)

    assert slope(loss, end) == pytest.approx(0.0, abs=1e-12)
    assert slope(loss, end - 0.1) < 0 < slope(loss, end + 0.1)
    assert slope(lambda z: loss_of("sigmoid", z, beta=BETA), 50.0) < 0  # DPO would go on


@pytest.mark.parametrize("eps", [0.01, 0.1, 0.4])
@pytest.mark.parametrize("name", ["sigmoid", "exo_pair"])
def test_smoothed_labels_end_where_their_odds_are(name, eps):
    end = math.log((1 - eps) / eps)

    def loss(z):
        return loss_of(name, z, label_smoothing=eps)

    assert slope(loss, end) == pytest.approx(0.0, abs=1e-12)
    assert slope(loss, end - 0.1) < 0 < slope(loss, end + 0.1)


@pytest.mark.parametrize("eps", [0.01, 0.1, 0.4])
def test_robust_is_the_clean_loss_on_average_over_flipped_labels(eps):
    z = torch.linspace(-6, 6, 25, dtype=torch.float64)
    noisy = (1 - eps) * loss_of("robust", z, label_smoothing=eps) + eps * loss_of(
        "robust", -z, label_smoothing=eps
    )
    torch.testing.assert_close(noisy, loss_of("sigmoid", z))


def test_where_the_losses_on_single_rewards_leave_the_chosen_one():
    assert slope(lambda z: loss_of("nca_pair", z), math.log(2)) == pytest.approx(0.0, abs=1e-12)
    assert slope(lambda z: loss_of("sppo_hard", z, beta=BETA), 1 / (2 * BETA)) == pytest.approx(
        0.0, abs=1e-12
    )
    for at in (-9.0, 0.0, 9.0):
        assert slope(lambda z: loss_of("apo_zero", z), at) < 0


def test_apo_down_lowers_both_answers_once_they_are_apart():
    for chosen, rejected, down in ((0.0, 0.0, 0.0), (0.5, -2.0, 1.0)):
        both = [torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (chosen, rejected)]
        bind(["apo_down"], None, {"beta": 1.0})(pair(*both)).sum().backward()
        assert math.copysign(1.0, float(both[0].grad)) * bool(both[0].grad) == down
        assert float(both[1].grad) > 0
