"""How a group loss is found, bound and normalised, and what a config is told that asks for nonsense."""

import pytest
import torch

from trellis.losses.group import GRPO_LOSSES, PolicyStep, bind_group_loss, token_weights

from .test_group import ALL, CLIPPED, KNOBS, batch, knobs, objective


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("gspo", KNOBS, "loss_type='gspo' is not known; expected one of grpo, bnpo, dr_grpo, dapo, cispo"),
        ("grpo", {"epsilon": 0.2}, r"takes \['epsilon_high', 'delta', 'importance_sampling_level'\]"),
        ("grpo", {**KNOBS, "epsilon": -0.1}, r"epsilon=-0.1 means nothing.*write a number of at least 0"),
        ("dapo", {**KNOBS, "importance_sampling_level": "row"}, "write one of token, sequence"),
        ("cispo", KNOBS, "epsilon_high=0.28 means nothing for loss_type='cispo'.*the largest weight itself"),
        ("sapo", {**KNOBS, "sapo_temperature_neg": 0.0}, "sapo_temperature_neg=0.0.*above 0"),
        ("vespo", {**KNOBS, "vespo_lambda_pos": -1.0}, "vespo_lambda_pos=-1.0.*at least 0"),
        ("dr_grpo", {**KNOBS, "max_completion_length": None}, "max_completion_length=None.*at least 1"),
        ("sapo", {**KNOBS, "delta": 4.0}, "loss_type='sapo' has none; leave delta=None, or take one of grpo"),
        ("grpo", {**KNOBS, "delta": 1.2}, r"delta=1.2 bounds the ratio above the upper clip of 1.28"),
        ("grpo", {**KNOBS, "delta": 1.2, "epsilon_high": None}, "above the upper clip of 1.2"),
    ],
)
def test_what_does_not_fit_is_said_at_once(name, fields, says):
    with pytest.raises(ValueError, match=says):
        bind_group_loss(name, fields)


def test_a_length_that_is_missing_is_named():
    fields = {k: v for k, v in KNOBS.items() if k != "max_completion_length"}
    assert bind_group_loss("dapo", fields).length is None
    with pytest.raises(ValueError, match="takes max_completion_length, which the config does not have"):
        bind_group_loss("dr_grpo", fields)


def test_the_knobs_of_a_loss_are_config_fields_that_it_reads():
    assert GRPO_LOSSES["dr_grpo"].knobs[-1] == "max_completion_length"
    assert {k for filed in GRPO_LOSSES.values() for k in filed.knobs} == set(KNOBS)
    assert {n for n, filed in GRPO_LOSSES.items() if "delta" in filed.knobs} == set(CLIPPED)


@pytest.mark.parametrize("name", ALL)
def test_every_knob_of_a_loss_changes_it(name):
    other = {
        "epsilon": 0.05,
        "epsilon_high": 3.0,
        "delta": 1.15,
        "importance_sampling_level": "sequence",
        "max_completion_length": 5,
    }
    start = knobs(name) if name == "cispo" else {**knobs(name), "epsilon_high": 0.1}
    before = objective(name, batch(2.0), start)[0]
    for knob in GRPO_LOSSES[name].knobs:
        changed = {**start, knob: other.get(knob, 0.5)}
        assert objective(name, batch(2.0), changed)[0].item() != before.item(), knob


def test_bnpo_and_dapo_agree_where_a_rollout_is_one_step():
    bnpo, dapo = (objective(name, batch(), knobs(name))[0] for name in ("bnpo", "dapo"))
    torch.testing.assert_close(bnpo, dapo, rtol=0, atol=0)
    assert (GRPO_LOSSES["bnpo"].per, GRPO_LOSSES["dapo"].per) == ("token", "rollout")


@pytest.mark.parametrize(
    ("per", "rows"),
    [
        ("row", [[0, 0.5, 0.5], [0, 0, 1], [0, 0, 0]]),
        *((p, [[0, 1, 1], [0, 0, 1], [0, 0, 0]]) for p in ("token", "rollout", "length", "sum")),
    ],
)
def test_token_weights_by_hand(per, rows):
    mask = torch.tensor([[0, 1, 1], [0, 0, 1], [0, 0, 0]]).bool()
    assert token_weights(mask, per).tolist() == rows


@pytest.mark.parametrize(
    ("name", "adds"),
    [("grpo", [1, 1]), ("luspo", [1, 1]), ("bnpo", [3, 0]), ("dapo", [3, 0]), ("dr_grpo", [9, 9])],
)
def test_items_by_hand(name, adds):
    mask = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 0]]).bool()
    assert bind_group_loss(name, knobs(name)).items(mask).tolist() == adds


def test_a_step_of_the_wrong_shape_is_refused():
    square, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\[B, T\] tensors \(advantages also \[B\]\), found .*\(3,\)"):
        PolicyStep(square, square, torch.zeros(3), mask)
    with pytest.raises(ValueError, match="found"):
        PolicyStep(square, square[:1], torch.zeros(2), mask)


def test_a_row_has_the_mean_of_its_tokens_advantages():
    step = batch(per_token=True)
    torch.testing.assert_close(step.row_advantages(), batch().advantages)
