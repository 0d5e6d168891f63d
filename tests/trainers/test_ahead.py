"""Sampling one rollout ahead: by which weights, with which correction, resumed to the bit, and what happens when it breaks."""

from __future__ import annotations

import pytest
import torch

from tests.trainers.ahead_runs import Copies, ahead, history, weights
from tests.trainers.group_runs import build, rollout_of
from tests.trainers.ppo_runs import config, logged, trainer_of
from trellis import GRPOConfig, RLOOConfig
from trellis.advantages import last_token

METHODS = ("PPO", "GRPO", "RLOO")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of each method, with a checkpoint after every step."""
    runs = {}

    def run(method):
        if method not in runs:
            trainer = ahead(
                method, tmp_path_factory.mktemp(method), save_strategy="steps", save_steps=1, logging_steps=3
            )
            trainer.train()
            runs[method] = trainer
        return runs[method]

    return run


def test_a_rollout_is_sampled_by_the_weights_at_which_training_on_the_one_before_began(tmp_path):
    engine = Copies()
    trainer = ahead("GRPO", tmp_path, engine=engine)
    trainer.train()
    assert engine.asked == [0, 0, 2, 4]  # rollouts of two optimizer steps
    assert logged(trainer, "sampling/staleness") == [0, 0, 2, 2, 2, 2, 2, 2]
    difference = logged(trainer, "sampling/sampling_logp_difference/mean")
    assert difference[0] == pytest.approx(0, abs=1e-6)
    assert min(difference[2:]) > 1e-4


@pytest.mark.parametrize(("method", "step"), [("PPO", 1), ("PPO", 2), ("PPO", 5), ("GRPO", 1), ("RLOO", 5)])
def test_resumed_equals_uninterrupted(method, step, whole, tmp_path):
    expected = whole(method)
    trainer = ahead(method, tmp_path, logging_steps=3)
    trainer.train(resume_from_checkpoint=f"{expected.args.output_dir}/checkpoint-{step}")
    assert torch.equal(weights(trainer), weights(expected))
    assert history(trainer) == history(expected)
    assert (
        len(trainer.collector.engine.asked) == {1: 2, 2: 2, 5: 0}[step]
    )  # what was sampled ahead is not sampled again


@pytest.mark.parametrize("method", METHODS)
def test_where_nothing_moves_sampling_ahead_changes_nothing(method, tmp_path):
    still = {"learning_rate": 0.0}
    late = ahead(method, tmp_path / "ahead", **still)
    in_step = ahead(method, tmp_path / "step", rollout_staleness=0, **still)
    late.train()
    in_step.train()
    for ours, theirs in zip(history(late), history(in_step), strict=True):
        both = {name for name in theirs if name in ours and not name.startswith("sampling/")}
        assert {n: ours[n] for n in both} == pytest.approx(
            {n: theirs[n] for n in both}, abs=1e-5, nan_ok=True
        )
        assert len(both) == len([name for name in theirs if not name.startswith("sampling/")])


def moved_rollout(trainer):
    """The second rollout of a trainer whose weights have changed since it was sampled."""
    torch.manual_seed(0)
    trainer.rollout = trainer.next_rollout()
    with torch.no_grad():
        for parameter in trainer.policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return rollout_of(trainer)


@pytest.mark.parametrize(("method", "level"), [("PPO", "token"), ("RLOO", "row"), ("GRPO", "row")])
def test_advantages_weigh_the_proximal_over_the_behaviour_policy(method, level, tmp_path):
    cap = {"vllm_importance_sampling_mode": "sequence_truncate", "vllm_importance_sampling_clip_max": 1.05}
    args = cap if method == "GRPO" else {"staleness_weight_max": 1.05}
    rollout, _ = moved_rollout(ahead(method, tmp_path / "a", **args))
    free = {"vllm_importance_sampling_correction": False}
    none = free if method == "GRPO" else {"staleness_weight_max": 1e-30}
    bare, _ = moved_rollout(ahead(method, tmp_path / "b", **none))
    mask = rollout.loss_mask
    ratio = (rollout.old_logps - rollout.sampled_logps) * mask
    assert (ratio.abs() > 1e-3).any()
    if level == "row":
        ratio = ratio.sum(1, keepdim=True).expand_as(ratio)
    expected = ratio.exp().clamp(max=1.05)
    assert (expected == 1.05).any()
    assert (expected < 1).any()
    unweighed = bare.advantages if method == "GRPO" else bare.advantages / 1e-30
    torch.testing.assert_close(rollout.advantages[mask], (unweighed * expected)[mask], rtol=1e-4, atol=1e-6)
    if method == "RLOO":  # a completion has one advantage
        assert rollout.advantages.gather(1, last_token(mask)[:, None]).shape == (len(rollout), 1)


def test_an_engine_that_dies_leaves_a_checkpoint_to_go_on_from(whole, tmp_path):
    args = {"save_strategy": "steps", "save_steps": 1, "logging_steps": 3}
    broken = ahead("GRPO", tmp_path, engine=Copies(fails=3), **args)
    with pytest.raises(ConnectionError, match="was ended"):
        broken.train()
    assert broken.state.global_step == 4
    trainer = ahead("GRPO", tmp_path, **args)
    # The last checkpoint but one lies before the rollout at which the engine died.
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert torch.equal(weights(trainer), weights(whole("GRPO")))


def test_evaluation_takes_the_present_weights_and_leaves_what_is_sampled_ahead(whole, tmp_path):
    engine = Copies()
    trainer = ahead(
        "GRPO", tmp_path, engine=engine, logging_steps=3, eval_strategy="steps", eval_steps=3,
        parts={"eval_dataset": ["the sea", "it is"]},
    )  # fmt: skip
    trainer.train()
    assert torch.equal(weights(trainer), weights(whole("GRPO")))
    assert engine.asked == [0, 0, 2, 3, 4, 6, 8]
    assert len(logged(trainer, "eval_reward")) == 3


class Noted:
    """A driver with objects in its columns, as environments are."""

    metrics = ()

    def __call__(self, rows, turn, seeds):
        from trellis.rollout import Episodes

        return Episodes(
            turn([r["prompt_ids"] for r in rows], seeds), columns={"note": [object()] * len(rows)}
        )


def test_what_no_checkpoint_can_hold_is_sampled_anew(tmp_path, caplog):
    trainer = ahead("GRPO", tmp_path, save_strategy="steps", save_steps=1, max_steps=4)
    object.__setattr__(trainer.collector.means, "driver", Noted())
    trainer.train()
    assert "samples rollout 1 anew" in caplog.text
    again = ahead("GRPO", tmp_path, max_steps=4)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert again.collector.engine.asked == [2]
    assert logged(again, "sampling/staleness")[-1] == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"rollout_staleness": 2}, "expected 0 .* or 1"),
        ({"rollout_devices": []}, "rollout_devices is empty"),
        ({"use_vllm": True, "rollout_devices": ["cpu"]}, "no effect with use_vllm"),
        ({"use_vllm": True, "vllm_mode": "colocate", "rollout_staleness": 1}, "vllm_mode='server'"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(args, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        GRPOConfig(str(tmp_path), use_cpu=True, **args)


def test_weights_of_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="staleness_weight_max"):
        RLOOConfig(str(tmp_path), use_cpu=True, staleness_weight_max=0.0)
    with pytest.raises(ValueError, match="staleness_weight_max"):
        config(tmp_path, staleness_weight_max=0.0)


class Bound(Copies):
    apart = False


def mine(prompts):
    return {}


@pytest.mark.parametrize(
    ("parts", "args", "message"),
    [
        ({"engine": Bound()}, {"rollout_staleness": 1}, "Bound does not say that it has them"),
        ({"engine": Copies()}, {"rollout_devices": ["cpu"]}, "no effect with engine=Copies"),
        ({"rollout_func": mine}, {"rollout_staleness": 1}, "which weights sample"),
    ],
)
def test_engines_that_cannot_sample_apart_are_refused(parts, args, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build("GRPO", tmp_path, parts=parts, **args)


@pytest.mark.slow
def test_ppo_samples_ahead_in_another_process(tmp_path):
    """It gives what a copy of the weights in this process gives."""
    copied = ahead("PPO", tmp_path / "copies")
    copied.train()
    args = {"report_to": "none", "total_episodes": 16, "rollout_staleness": 1, "profile": True}
    real = trainer_of(tmp_path / "ahead", **args)
    real.train()
    torch.testing.assert_close(weights(real), weights(copied))
    assert real.profile.sampling.sampled_tokens == 16 * 6
    assert real.collector.engine._processes == []  # they end with training
    in_step = trainer_of(tmp_path, report_to="none", rollout_devices=["cpu", "cpu"])
    assert in_step.collector.engine.devices == ["cpu", "cpu"]
    assert in_step.collector.exact
