"""Each loss on pairs against its paper's formula in plain Python floats, gradients included; then what all of them share."""

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trellis.losses.preference import DPO_LOSSES, bind
from trellis.types import Pair, PairStep

KNOBS = {"beta": 0.3, "label_smoothing": 0.1, "discopop_tau": 0.2}
DELTA = 0.4
VALUES = {
    "chosen": [0.7, -1.2, 0.0, 2.5],
    "rejected": [-0.4, 0.9, 0.0, 3.1],
    "chosen_logps": [-12.0, -7.5, -3.0, -20.0],
    "rejected_logps": [-11.0, -9.5, -2.0, -25.0],
    "chosen_length": [4.0, 3.0, 1.0, 7.0],
    "rejected_length": [2.0, 5.0, 1.0, 6.0],
}


def sg(x):
    return 1 / (1 + math.exp(-x))


def nls(x):
    return math.log(1 + math.exp(-x))


def smooth(z, e):
    return (1 - e) * nls(z) + e * nls(-z)


def exo(z, e):
    p = sg(z)
    return p * math.log(p / (1 - e)) + (1 - p) * math.log((1 - p) / e)


def discopop(z, tau):
    gate = sg(z / tau)
    return (1 - gate) * nls(z) + gate * math.exp(-z)


B, E, T = KNOBS["beta"], KNOBS["label_smoothing"], KNOBS["discopop_tau"]
FORMULAS = {
    "sigmoid": lambda c, r, lc, lr, nc, nr: smooth(B * (c - r), E),
    "hinge": lambda c, r, lc, lr, nc, nr: max(0.0, 1 - B * (c - r)),
    "ipo": lambda c, r, lc, lr, nc, nr: (c / nc - r / nr - 1 / (2 * B)) ** 2,
    "exo_pair": lambda c, r, lc, lr, nc, nr: exo(B * (c - r), E),
    "nca_pair": lambda c, r, lc, lr, nc, nr: nls(B * c) + 0.5 * nls(-B * c) + 0.5 * nls(-B * r),
    "robust": lambda c, r, lc, lr, nc, nr: ((1 - E) * nls(B * (c - r)) - E * nls(-B * (c - r))) / (1 - 2 * E),
    "bco_pair": lambda c, r, lc, lr, nc, nr: nls(B * c - DELTA) + nls(-(B * r - DELTA)),
    "sppo_hard": lambda c, r, lc, lr, nc, nr: (c - 1 / (2 * B)) ** 2 + (r + 1 / (2 * B)) ** 2,
    "apo_zero": lambda c, r, lc, lr, nc, nr: 1 - sg(B * c) + sg(B * r),
    "apo_down": lambda c, r, lc, lr, nc, nr: sg(B * c) + 1 - sg(B * (c - r)),
    "discopop": lambda c, r, lc, lr, nc, nr: discopop(B * (c - r), T),
    "sft": lambda c, r, lc, lr, nc, nr: -lc / nc,
    "sigmoid_norm": lambda c, r, lc, lr, nc, nr: smooth(B * (c / nc - r / nr), E),
}
SORTED = ("aot", "aot_pair", "aot_unpaired")
ALL = tuple(DPO_LOSSES)


def pairs(values=VALUES, grad=False):
    """Float64 pairs; with `grad`, log-ratios and log-probs are leaves."""
    tensors = {k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()}
    if grad:
        for name in ("chosen", "rejected", "chosen_logps", "rejected_logps"):
            tensors[name].requires_grad_(True)
    return Pair(**tensors)


def part(pair, index):
    return Pair(**{k: v[index] for k, v in vars(pair).items()})


def evaluate(name, pair, step=None, **knobs):
    own = PairStep(pair.detach(), torch.arange(len(pair)))
    return bind([name], None, {**KNOBS, **knobs})(pair, step=step or own, mean_reward=DELTA)


def rows(values=VALUES):
    return list(zip(*values.values(), strict=True))


def test_every_loss_is_tested():
    assert set(FORMULAS) | set(SORTED) <= set(DPO_LOSSES)
    assert {n for n in DPO_LOSSES if DPO_LOSSES[n].function.__module__.startswith("trellis")} == {
        *FORMULAS,
        *SORTED,
    }


@pytest.mark.parametrize("name", FORMULAS)
def test_value_and_gradient_are_the_formula(name):
    pair = pairs(grad=True)
    found = evaluate(name, pair)
    want = [FORMULAS[name](*row) for row in rows()]
    torch.testing.assert_close(
        found.detach(), torch.tensor(want, dtype=torch.float64), rtol=1e-12, atol=1e-13
    )
    found.sum().backward()
    names, h = list(VALUES), 1e-6
    for at, column in enumerate(("chosen", "rejected", "chosen_logps", "rejected_logps")):
        grads = getattr(pair, column).grad
        for i, row in enumerate(rows()):
            if name == "hinge" and abs(1 - B * (row[0] - row[1])) < 1e-3:
                continue
            low, high = list(row), list(row)
            position = names.index(column)
            low[position], high[position] = row[position] - h, row[position] + h
            slope = (FORMULAS[name](*high) - FORMULAS[name](*low)) / (2 * h)
            assert (0.0 if grads is None else float(grads[i])) == pytest.approx(slope, abs=1e-7), (
                column,
                i,
                at,
            )


@pytest.mark.parametrize("name", SORTED)
def test_sorted_losses_are_the_sum_over_ranks(name):
    """Against sorting in one piece with gradients flowing through the sorted values."""
    free, whole = pairs(grad=True), pairs(grad=True)
    found = evaluate(name, free)
    if name == "aot":
        policy = (whole.chosen_logps - whole.rejected_logps).sort().values
        reference = whole.chosen_logps - whole.rejected_logps - (whole.chosen - whole.rejected)
        z = B * (policy - reference.detach().sort().values)
    else:
        z = B * (whole.chosen.sort().values - whole.rejected.sort().values)
    want = -(1 - E) * torch.nn.functional.logsigmoid(z) - E * torch.nn.functional.logsigmoid(-z)
    torch.testing.assert_close(found.sum(), want.sum())
    found.sum().backward()
    want.sum().backward()
    for column in ("chosen_logps", "rejected_logps") if name == "aot" else ("chosen", "rejected"):
        torch.testing.assert_close(getattr(free, column).grad, getattr(whole, column).grad)


@pytest.mark.parametrize("name", ALL)
def test_the_cut_of_a_step_changes_nothing(name):
    whole = pairs(grad=True)
    together = evaluate(name, whole)
    together.sum().backward()
    for order in permutations(range(4)):
        pieces = pairs(grad=True)
        for index in (torch.tensor(order[:1]), torch.tensor(order[1:])):
            step = PairStep(pieces.detach(), index)
            mine = evaluate(name, part(pieces, index), step)
            torch.testing.assert_close(mine, together[index].detach())
            mine.sum().backward()
        for column in ("chosen", "rejected", "chosen_logps", "rejected_logps"):
            ours, theirs = getattr(pieces, column).grad, getattr(whole, column).grad
            assert (ours is None) == (theirs is None)
            if ours is not None:
                torch.testing.assert_close(ours, theirs)


AT_ZERO = {
    **dict.fromkeys(("sigmoid", "robust", "aot", "aot_pair", "aot_unpaired", "sigmoid_norm"), math.log(2)),
    "hinge": 1.0,
    "ipo": 25.0,
    "exo_pair": 0.5 * math.log(0.5 / 0.999) + 0.5 * math.log(0.5 / 0.001),
    "nca_pair": 2 * math.log(2),
    "bco_pair": 2 * math.log(2),
    "sppo_hard": 50.0,
    "apo_zero": 1.0,
    "apo_down": 1.0,
    "discopop": 0.5 * math.log(2) + 0.5,
    "sft": 3.0,
}


@pytest.mark.parametrize("name", ALL)
def test_value_where_policy_and_reference_agree(name):
    one = {k: [0.0] for k in ("chosen", "rejected")} | {k: [-6.0] for k in ("chosen_logps", "rejected_logps")}
    pair = pairs({**one, "chosen_length": [2.0], "rejected_length": [2.0]})
    fields = {"beta": 0.1, "label_smoothing": 0.0, "discopop_tau": 0.05}
    step = PairStep(pair, torch.arange(1))
    found = bind([name], None, fields)(pair, step=step, mean_reward=0.0)
    assert float(found) == pytest.approx(AT_ZERO[name], rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ALL)
def test_finite_at_the_ends(name, dtype):
    ends = (-1e3, 0.0, 1e3)
    grid = [(c, r) for c in ends for r in ends]
    values = {
        "chosen": [c for c, _ in grid],
        "rejected": [r for _, r in grid],
        "chosen_logps": [min(c, 0.0) for c, _ in grid],
        "rejected_logps": [min(r, 0.0) for _, r in grid],
        "chosen_length": [1.0] * len(grid),
        "rejected_length": [3.0] * len(grid),
    }
    for knobs in ({}, {"beta": 5.0, "label_smoothing": 0.0, "discopop_tau": 1.0}, {"discopop_tau": 0.05}):
        pair = Pair(**{k: v.detach().to(dtype) for k, v in vars(pairs(values)).items()})
        leaves = [
            x.requires_grad_(True)
            for x in (pair.chosen, pair.rejected, pair.chosen_logps, pair.rejected_logps)
        ]
        losses = evaluate(name, pair, **knobs)
        assert losses.dtype == dtype
        assert bool(losses.isfinite().all())
        losses.sum().backward()
        assert all(bool(x.grad.isfinite().all()) for x in leaves if x.grad is not None)


TOWARDS_CHOSEN = ("sigmoid", "hinge", "robust", "apo_zero", "bco_pair", "sigmoid_norm", *SORTED)


@settings(max_examples=50, deadline=None)
@given(
    c=st.floats(-20, 20),
    r=st.floats(-20, 20),
    name=st.sampled_from(TOWARDS_CHOSEN),
)
def test_gradients_lift_the_chosen_and_lower_the_rejected(c, r, name):
    one = {"chosen": [c], "rejected": [r], "chosen_logps": [-30 + c], "rejected_logps": [-30 + r]}
    pair = pairs({**one, "chosen_length": [3.0], "rejected_length": [2.0]}, grad=True)
    evaluate(name, pair, label_smoothing=0.0).sum().backward()
    chosen, rejected = (
        (pair.chosen_logps, pair.rejected_logps) if name == "aot" else (pair.chosen, pair.rejected)
    )
    assert float(chosen.grad) <= 0
    assert float(rejected.grad) >= 0


def test_mixed_losses_each_see_what_they_need():
    """ipo averages over tokens and leaves the sums of the others alone."""
    mixed = bind(["sigmoid", "ipo", "sft"], [0.8, 0.2, 1.0], KNOBS)(pairs())
    weights = {"sigmoid": 0.8, "ipo": 0.2, "sft": 1.0}
    apart = [sum(w * FORMULAS[name](*row) for name, w in weights.items()) for row in rows()]
    torch.testing.assert_close(mixed, torch.tensor(apart, dtype=torch.float64))


def test_exo_does_not_move_the_smoothing_of_its_neighbours():
    fields = {**KNOBS, "label_smoothing": 0.0}
    both = bind(["exo_pair", "sigmoid"], None, fields)(pairs())
    exo_alone, sigmoid = (bind([n], None, fields)(pairs()) for n in ("exo_pair", "sigmoid"))
    torch.testing.assert_close(both, exo_alone + sigmoid, rtol=0, atol=0)
    torch.testing.assert_close(
        sigmoid, torch.tensor([nls(B * (c - r)) for c, r, *_ in rows()], dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((["sigmid"], None, KNOBS), "loss_type='sigmid' is not known; expected one of sigmoid, hinge"),
        (([], None, KNOBS), "loss_type is empty"),
        ((["sigmoid", "ipo"], [1.0], KNOBS), "loss_weights has 1 entries for 2 losses"),
        ((["sigmoid"], None, KNOBS, {"gamma": 1.0}), r"loss_kwargs \['gamma'\] belong to none"),
        ((["sigmoid"], None, KNOBS, {"beta": 1.0}), r"loss_kwargs \['beta'\] are fields"),
        ((["sigmoid"], None, {"beta": 1.0}), r"takes \['label_smoothing'\].*loss_kwargs"),
    ],
)
def test_what_does_not_fit_is_said_at_once(arguments, says):
    with pytest.raises(ValueError, match=says):
        bind(*arguments)


@pytest.mark.parametrize("name", ["ipo", "sft", "aot", "sppo_hard", "sigmoid_norm"])
def test_a_divergence_that_means_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"means nothing for loss_type='{name}'.*losses sigmoid, hinge"):
        bind([name], None, KNOBS, divergence="js_divergence")
