"""Weights between the engine that sampled and the policy that is trained, against loops over single numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trellis.losses.correction import MODES, correction, off_policy_mask, sampling_ratio
from trellis.losses.group import PolicyStep


def drawn(seed, spread=1.0, outside=0.0):
    draw = torch.Generator().manual_seed(seed)
    old, sampled = torch.randn(2, 4, 6, generator=draw, dtype=torch.float64) * spread
    mask = torch.rand(4, 6, generator=draw) > 0.4
    mask[3] = False
    return torch.where(mask, old, outside), torch.where(mask, sampled, outside), mask


def slow(old, sampled, mode, low, high):
    """One row's weights."""
    logs = [o - s for o, s in zip(old, sampled, strict=True)]
    if mode.startswith("sequence"):
        logs = [sum(logs)] * len(logs)
    weights = [math.exp(x) for x in logs]
    if mode.endswith("truncate"):
        return [min(max(w, low), high) for w in weights]
    return [w if low <= w <= high else 0.0 for w in weights]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    mode=st.sampled_from(MODES),
    low=st.sampled_from([None, 0.5]),
    high=st.sampled_from([None, 1.5, 3.0]),
)
def test_weights_are_the_loop(seed, mode, low, high):
    old, sampled, mask = drawn(seed, outside=math.nan)
    found = correction(old.requires_grad_(True), sampled, mask, mode=mode, clip_max=high, clip_min=low)
    assert not found.requires_grad
    assert (found[~mask] == 0).all()
    bounds = (0.0 if low is None else low, math.inf if high is None else high)
    for i, m in enumerate(mask):
        want = slow(old[i][m].tolist(), sampled[i][m].tolist(), mode, *bounds)
        torch.testing.assert_close(found[i][m], torch.tensor(want, dtype=torch.float64))


@pytest.mark.parametrize("mode", MODES)
def test_an_engine_that_agrees_needs_no_correction(mode):
    old, _, mask = drawn(0)
    torch.testing.assert_close(
        correction(old, old, mask, mode=mode, clip_max=3.0, clip_min=0.3), mask.double()
    )


@pytest.mark.parametrize("mode", MODES)
def test_finite_at_the_ends(mode):
    _, _, mask = drawn(0)
    for shift in (-200.0, 200.0):
        old = torch.full(mask.shape, shift)
        assert bool(correction(old, torch.zeros_like(old), mask, mode=mode, clip_max=None).isfinite().all())


def test_ratios_are_those_of_the_metrics():
    old, sampled, mask = drawn(2)
    ratio = sampling_ratio(old, sampled, mask, level="token")
    torch.testing.assert_close(ratio[mask], (old - sampled).exp()[mask])
    assert (ratio[~mask] == 0).all()


def test_an_unknown_mode_is_named():
    old, sampled, mask = drawn(0)
    with pytest.raises(
        ValueError, match="mode='token' of the sampling correction is not known; expected one of token_"
    ):
        correction(old, sampled, mask, mode="token", clip_max=2.0)


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_rows_that_drifted_and_were_bad_are_dropped(seed, per_token):
    logps, sampled, mask = drawn(seed)
    advantages = torch.tensor([-1.0, 1.0, -0.5, -1.0], dtype=torch.float64)
    given_ = torch.where(mask, advantages[:, None], 0.0) if per_token else advantages
    kept = off_policy_mask(PolicyStep(logps.requires_grad_(True), sampled, given_, mask), threshold=0.1)
    assert not kept.requires_grad
    for i, m in enumerate(mask):
        gaps = (sampled[i] - logps[i])[m].tolist()
        stray = advantages[i] < 0 and len(gaps) > 0 and sum(gaps) / len(gaps) > 0.1
        assert float(kept[i]) == (0.0 if stray else 1.0)
