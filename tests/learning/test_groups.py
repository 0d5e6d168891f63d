"""GRPO, RLOO and PPO learn to add, from the same reward function; a reward that says nothing teaches nothing.

A cold start imitates answers of which half are a little off, so that sampling is right about a third of the time, on sums that
were trained on and on others alike. Exact match then has to undo that. Measured on sums that nothing was ever trained on.
"""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.learning.sums import accuracy, cold_start, sums
from trellis import GRPOConfig, GRPOTrainer, PPOConfig, PPOTrainer, RLOOConfig, RLOOTrainer
from trellis.rewards import accuracy_reward

GROUPS = {
    "max_completion_length": 4,
    "num_generations": 4,
    "per_device_train_batch_size": 256,
    "learning_rate": 1.5e-3,
}
METHODS = {
    "grpo": (GRPOTrainer, GRPOConfig, {**GROUPS, "max_steps": 90, "scale_rewards": "batch"}),
    "rloo": (RLOOTrainer, RLOOConfig, {**GROUPS, "max_steps": 90, "beta": 0.0}),
    "ppo": (
        PPOTrainer,
        PPOConfig,
        {
            "response_length": 4, "per_device_train_batch_size": 128, "num_mini_batches": 2, "num_ppo_epochs": 2,
            "kl_coef": 0.0, "max_steps": 200, "learning_rate": 8e-4, "num_sample_generations": 0,
        },
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """The cold start of a seed, made once."""
    home = tmp_path_factory.mktemp("sums")
    return lambda seed: (
        home / str(seed) if (home / str(seed)).exists() else cold_start(home / str(seed), seed)
    )


def learn(folder, start, method, seed, reward=accuracy_reward, **changes):
    """The trainer after training on four fifths of the sums."""
    trainer_of, config, settings = METHODS[method]
    args = config(
        str(folder), use_cpu=True, disable_tqdm=True, save_strategy="no", report_to="none", seed=seed,
        temperature=1.0, warmup_steps=10, logging_steps=10, **{**settings, **changes},
    )  # fmt: skip
    trainer = trainer_of(args=args, model=str(start), reward_funcs=reward, train_dataset=sums()[0])
    trainer.train()
    return trainer


def adds(model, start):
    return accuracy(model, AutoTokenizer.from_pretrained(start), sums()[1])


def no_opinion(completions):
    return [1.0] * len(completions)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("method", ["grpo", "rloo", "ppo"])
def test_sums_never_seen_are_answered_better(tmp_path, start, method, seed):
    before = adds(AutoModelForCausalLM.from_pretrained(start(seed)).eval(), start(seed))
    trainer = learn(tmp_path, start(seed), method, seed)
    after = adds(trainer.policy, start(seed))
    assert 0.2 < before < 0.45
    assert after > before + 0.1
    told = [log["rewards/accuracy_reward/mean"] for log in trainer.state.log_history if "loss" in log]
    assert told[-1] > told[0] + 0.1


@pytest.mark.slow
def test_sums_are_learned_from_rollouts_that_older_weights_sampled(tmp_path, start):
    trainer = learn(tmp_path, start(0), "grpo", 0, max_steps=45, rollout_staleness=1)
    told = [log for log in trainer.state.log_history if "loss" in log]
    assert told[-1]["sampling/staleness"] == 1
    assert told[-1]["rewards/accuracy_reward/mean"] > told[0]["rewards/accuracy_reward/mean"] + 0.1
    before = adds(AutoModelForCausalLM.from_pretrained(start(0)).eval(), start(0))
    assert adds(trainer.policy, start(0)) > before + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_where_all_earn_the_same_nothing_is_learned(tmp_path, start, method):
    trainer = learn(tmp_path, start(0), method, 0, no_opinion, max_steps=3)
    untouched = AutoModelForCausalLM.from_pretrained(start(0)).state_dict()
    assert all(torch.equal(weight, untouched[name]) for name, weight in trainer.policy.state_dict().items())
    assert trainer.state.log_history[-1].get("frac_reward_zero_std", 1.0) == 1.0


@pytest.mark.slow
def test_a_constant_reward_does_not_teach_ppo_to_add(tmp_path, start):
    trainer = learn(tmp_path, start(0), "ppo", 0, no_opinion, max_steps=60)
    before = adds(AutoModelForCausalLM.from_pretrained(start(0)).eval(), start(0))
    # Updates without a signal are noise: they can only unlearn.
    assert adds(trainer.policy, start(0)) < before + 0.05
