"""The prompts of a rollout are a function of the seed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trellis.data import epoch_order, prompt_indices


@given(st.integers(1, 50), st.integers(0, 2**40), st.integers(0, 1000))
def test_an_epoch_is_a_permutation(n, seed, epoch):
    assert sorted(epoch_order(n, seed, epoch)) == list(range(n))


def test_epochs_and_seeds_differ():
    orders = {tuple(epoch_order(20, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@given(st.integers(1, 13), st.integers(1, 40), st.integers(0, 40))
def test_rollouts_cut_one_sequence(n, count, start):
    together = prompt_indices(0, start + count, n, seed=3)
    assert prompt_indices(start, count, n, seed=3) == together[start:]
    for epoch in range((start + count) // n):
        assert sorted(together[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_in_order():
    assert prompt_indices(2, 4, 3, seed=0, shuffle=False) == [2, 0, 1, 2]


def test_no_prompts():
    with pytest.raises(ValueError, match="at least 1 prompt"):
        prompt_indices(0, 1, 0, seed=0)
