"""When a run is told that its rewards teach nothing, and what it is told."""

import pytest
import torch

from tests.builders import tiny_model
from tests.trainers.group_runs import build, letters, spaces, stops_often
from trellis import GRPOConfig, RLOOConfig
from trellis.trainers.verdicts import Silence, listen, told_apart, verdict_on

GROUP = torch.tensor([0, 0, 1, 1])
ENDED = torch.tensor([True, True, True, False])
NAN = float("nan")


def constant(completions, **_):
    """The same for all."""
    return [0.5] * len(completions)


@pytest.mark.parametrize(
    ("rewards", "apart"),
    [
        ([[1.0], [1.0], [2.0], [2.0]], False),  # prompts differ, completions do not
        ([[1.0], [1.0], [2.0], [2.5]], True),
        ([[1.0], [NAN], [2.0], [3.0]], True),
        ([[1.0], [NAN], [2.0], [NAN]], False),  # one completion of a prompt cannot be better than none
        ([[1.0, 2.0], [1.0, 3.0], [0.0, 0.0], [0.0, 0.0]], True),
        ([[0.1 + 0.2], [0.3], [0.7], [0.7]], False),  # what rounding makes is no difference
    ],
)
def test_rewards_tell_completions_of_a_prompt_apart(rewards, apart):
    assert told_apart(torch.tensor(rewards), GROUP, torch.ones(4, dtype=torch.bool)) is apart


def test_a_group_that_is_left_out_says_nothing():
    rewards, left = torch.tensor([[1.0], [2.0], [3.0], [3.0]]), torch.tensor([False, False, True, True])
    assert not told_apart(rewards, GROUP, left)
    assert told_apart(rewards, GROUP, ~left)


def test_silence_adds_up_until_a_reward_speaks():
    flat, found = torch.tensor([[1.0], [1.0], [2.0], [2.0]]), Silence()
    for _ in range(3):
        found = listen(found, flat, GROUP, ENDED)
    assert found == Silence(rollouts=3, completions=12, cut=3, low=1.0, high=2.0)
    spoken = torch.tensor([[1.0], [3.0], [2.0], [2.0]])
    assert listen(found, spoken, GROUP, ENDED) == Silence()
    cut = torch.zeros(4, dtype=torch.bool)
    assert listen(found, spoken, GROUP, cut) == Silence()
    assert listen(found, spoken, GROUP, cut, finished_only=True).rollouts == 4


@pytest.mark.parametrize(
    ("silence", "settings", "words"),
    [
        (Silence(4, 32, 0, 0.0, 1.0), {}, "take prompts that are solved sometimes, or write num_generations=16"),
        (Silence(4, 32, 32, 0.0, 0.0), {}, "all of them were cut off: write a larger max_completion_length (now 256)"),
        (Silence(4, 32, 3), {}, "no reward applied to any completion for 4 rollouts in a row (32 completions)"),
        (Silence(4, 32, 32, 0.0, 1.0), {"mask_truncated_completions": True}, "every completion was cut off"),
    ],
    ids=["same in each group", "cut", "none applies", "cut and left out"],
)  # fmt: skip
def test_the_verdict_names_the_cause(tmp_path, silence, settings, words):
    args = GRPOConfig(str(tmp_path), use_cpu=True, **settings)
    assert words in verdict_on(silence, args, ["correct"])


def test_the_verdict_names_a_clip_that_leaves_nothing(tmp_path):
    args = RLOOConfig(str(tmp_path), use_cpu=True, reward_clip_range=[-1.0, 1.0])
    found = verdict_on(Silence(4, 32, 0, 1.0, 1.0), args, ["correct", "short"])
    assert "each 1)" in found
    assert "'correct' and 'short' returns, clipped to reward_clip_range=[-1.0, 1.0]" in found


@pytest.mark.parametrize(
    ("settings", "rewards", "warnings"),
    [
        ({"max_steps": 3}, constant, 0),
        ({"max_steps": 4}, constant, 1),
        ({"max_steps": 9}, constant, 1),
        ({"max_steps": 5}, letters, 0),
        ({"max_steps": 4, "mask_truncated_completions": True, "max_completion_length": 1}, letters, 1),
    ],
    ids=["too early", "four rollouts", "once per run", "rewards that differ", "all left out"],
)
def test_a_run_is_warned_once(tmp_path, caplog, settings, rewards, warnings):
    build("GRPO", tmp_path, parts={"reward_funcs": rewards}, **settings).train()
    assert len([r for r in caplog.records if "nothing is learned" in r.getMessage()]) == warnings


def test_a_second_run_is_warned_anew(tmp_path, caplog):
    trainer = build("RLOO", tmp_path, parts={"reward_funcs": constant}, max_steps=4)
    trainer.train()
    trainer.train()
    assert len([r for r in caplog.records if "nothing is learned" in r.getMessage()]) == 2


def test_rewards_that_cancel_each_other_are_silent_unless_they_are_normalised_apart(tmp_path, caplog):
    def against(completions, **_):
        return [-value for value in letters(completions)]

    for how, expected in (("sum_then_normalize", 1), ("normalize_then_sum", 0)):
        caplog.clear()
        parts = {"reward_funcs": [letters, against]}
        build("GRPO", tmp_path, parts=parts, max_steps=4, multi_objective_aggregation=how).train()
        assert len([r for r in caplog.records if "nothing is learned" in r.getMessage()]) == expected


def test_rewards_that_skip_some_completions_are_heard(tmp_path, caplog):
    parts = {"reward_funcs": spaces, "model": stops_often(tiny_model("llama"), 0.15)}
    build("GRPO", tmp_path, parts=parts, max_steps=4, max_completion_length=12).train()
    assert not [r for r in caplog.records if "nothing is learned" in r.getMessage()]
