"""The meter: sums over micro-batches, one division, held and derived figures, and a state that goes on where it was."""

import pytest
import torch

from trellis.metrics import Meter, Metric, deviation, explained_variance, variance


def test_sums_are_divided_once_over_micro_batches():
    """A mean of means would be 3.0: (1 + 5) / 2."""
    meter = Meter([Metric("x", "mean x")])
    meter.add({"x": (torch.tensor(3.0), 3)})
    meter.add({"x": (torch.tensor(5.0), torch.tensor(1))})
    assert meter.means() == {"x": 2.0}
    assert meter.means() == {"x": 2.0}, "looking changes nothing"
    meter.reset()
    assert meter.means() == {}


def test_ranks_are_summed_before_the_division():
    meter = Meter([Metric("x", "mean x"), Metric("y", "mean y")])
    meter.add({"x": (2.0, 1.0)})
    other = torch.tensor([[10.0, 2.0], [7.0, 7.0]], dtype=torch.float64)
    assert meter.means(lambda totals: totals + other) == {"x": 4.0, "y": 1.0}


def test_an_undeclared_name_is_an_error():
    with pytest.raises(KeyError, match="'z' is not declared"):
        Meter([Metric("x", "mean x")]).add({"z": (1.0, 1.0)})


def test_held_figures_are_repeated_and_others_are_absent():
    meter = Meter([Metric("once", "per rollout", hold=True), Metric("always", "per step")])
    meter.add({"once": (4.0, 2.0), "always": (1.0, 1.0)})
    assert meter.means() == {"once": 2.0, "always": 1.0}
    meter.reset()
    assert meter.means() == {"once": 2.0}
    meter.add({"once": (9.0, 3.0)})
    assert meter.means() == {"once": 3.0}


def test_variance_and_deviation_of_parts_are_those_of_the_whole():
    meter = Meter(
        [
            Metric("x", "mean"),
            Metric("xx", "mean of squares", hidden=True),
            Metric("var", "variance", derive=variance("x", "xx")),
            Metric("std", "deviation", derive=deviation("x", "xx")),
        ]
    )
    x = torch.randn(10, dtype=torch.float64) + 4
    for part in x.split(3):
        meter.add({"x": (part.sum(), len(part)), "xx": ((part**2).sum(), len(part))})
    means = meter.means()
    assert set(means) == {"x", "var", "std"}, "a hidden figure is not logged"
    assert means["var"] == pytest.approx(float(x.var(unbiased=False)))
    assert means["std"] == pytest.approx(float(x.std(unbiased=False)))


def test_variance_is_never_negative():
    assert variance("x", "xx")({"x": 1.0, "xx": 1.0 - 1e-12}) == 0.0
    assert variance("x", "xx")({"x": 1.0}) is None


def test_explained_variance_by_hand():
    derive = explained_variance("e", "ee", "r", "rr")
    error, target = torch.tensor([0.5, -0.5, 1.0, 0.0]), torch.tensor([1.0, 2.0, 4.0, 5.0])
    means = {"e": error.mean(), "ee": (error**2).mean(), "r": target.mean(), "rr": (target**2).mean()}
    expected = 1 - error.var(unbiased=False) / target.var(unbiased=False)
    assert derive({k: float(v) for k, v in means.items()}) == pytest.approx(float(expected))
    assert derive({"e": 0.0, "ee": 0.0, "r": 2.0, "rr": 4.0}) is None, (
        "where nothing varies there is nothing to explain"
    )


def test_the_state_goes_on_where_it_was():
    metrics = [Metric("x", "mean", hold=True), Metric("y", "mean")]
    whole, first, second = Meter(metrics), Meter(metrics), Meter(metrics)
    for meter in (whole, first):
        meter.add({"x": (1.0, 3.0), "y": (2.0, 3.0)})
        meter.means()
    second.load_state_dict(first.state_dict())
    for meter in (whole, second):
        meter.add({"y": (5.0, 1.0)})
    assert second.means() == whole.means()
    with pytest.raises(ValueError, match="are not this trainer's"):
        Meter([Metric("other", "mean")]).load_state_dict(first.state_dict())


def test_a_logged_gradient_is_not_kept():
    meter = Meter([Metric("x", "mean")])
    meter.add({"x": (torch.ones((), requires_grad=True) * 2, 1.0)})
    assert not meter.pending[0][1].requires_grad
