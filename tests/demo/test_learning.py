"""Learning is real: it rises over seeds, falls when the reward is turned round, and does neither for noise."""

from __future__ import annotations

import pytest

from trellis.demo import data, run_demo
from trellis.demo.stages import train_reward

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return run_demo(tmp_path_factory.mktemp("seed0"), seed=0, quiet=True)


def assert_improved(result):
    before, after = result.before, result.after
    assert after.score > before.score + 0.7
    assert before.judge < 0.55
    assert after.judge > 0.85
    assert after.kl < 6
    assert after.distinct > 0.45
    assert after.stopped > before.stopped - 0.1


def test_the_whole_demo_learns(first):
    assert first.held_out_loss < 3.8
    assert first.pair_accuracy > 0.94
    assert_improved(first)


@pytest.mark.parametrize("seed", [1, 2])
def test_ppo_improves_with_other_seeds(first, seed, tmp_path):
    """From the same SFT and reward models: which prompts, what is sampled and how rows are shuffled is the seed's."""
    assert_improved(run_demo(tmp_path, seed=seed, updates=40, start=first.output, quiet=True))


@pytest.mark.parametrize("seed", [1, 2])
def test_reward_models_of_other_seeds_tell_pairs_apart(first, seed, tmp_path):
    sft = first.output / "sft"
    assert train_reward(tmp_path, sft, data.load(), seed=seed, epochs=1, quiet=True) > 0.94


def test_a_reward_turned_round_is_followed_too(first, tmp_path):
    result = run_demo(tmp_path, reward="flipped", updates=20, start=first.output, quiet=True)
    assert result.after.score < result.before.score - 0.3
    assert result.after.judge < result.before.judge - 0.1


def test_noise_teaches_nothing(first, tmp_path):
    result = run_demo(tmp_path, reward="random", updates=20, start=first.output, quiet=True)
    assert abs(result.after.score - result.before.score) < 0.4
    assert result.after.judge < result.before.judge + 0.12
