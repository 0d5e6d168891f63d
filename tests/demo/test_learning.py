"""Learning is real: it rises over seeds, falls when the reward is turned round, and does neither for noise."""

from __future__ import annotations

import pytest

from trellis.demo import run_demo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return run_demo(tmp_path_factory.mktemp("seed0"), seed=0, quiet=True)


def assert_learned(result):
    before, after = result.before, result.after
    assert result.held_out_loss < 3.8
    assert result.pair_accuracy > 0.94
    assert after.score > before.score + 0.7
    assert before.judge < 0.55
    assert after.judge > 0.85
    assert after.kl < 6
    assert after.distinct > 0.45
    assert after.stopped > before.stopped - 0.1


def test_the_first_seed_learns(first):
    assert_learned(first)


@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_learn(seed, tmp_path):
    assert_learned(run_demo(tmp_path, seed=seed, quiet=True))


def test_a_reward_turned_round_is_followed_too(first, tmp_path):
    result = run_demo(tmp_path, reward="flipped", updates=30, start=first.output, quiet=True)
    assert result.after.score < result.before.score - 0.3
    assert result.after.judge < result.before.judge - 0.1


def test_noise_teaches_nothing(first, tmp_path):
    result = run_demo(tmp_path, reward="random", updates=30, start=first.output, quiet=True)
    assert abs(result.after.score - result.before.score) < 0.4
    assert result.after.judge < result.before.judge + 0.12
