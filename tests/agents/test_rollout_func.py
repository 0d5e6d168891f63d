"""A user's own rollouts, and which driver a trainer's arguments ask for."""

import pytest
import torch

from tests.agents.talking import Policy, add, by_turn, chat, tool_tokenizer
from trellis.agents import RolloutFunc, ToolLoop, driver_for
from trellis.rollout import OneTurn

TOKENIZER = tool_tokenizer()
STOP = TOKENIZER.eos_token_id
ROWS = [chat("x"), chat("x")]
GOOD = {
    "prompt_ids": [[5, 6], [5]],
    "completion_ids": [[7, 8, STOP], [9, STOP]],
    "logprobs": [[-1.0, -2.0, -3.0], [-4.0, -5.0]],
}


def run(returned, **more):
    function = RolloutFunc(lambda prompts: {**returned, **more}, stop_ids=[STOP])
    return function(ROWS, Policy(TOKENIZER, by_turn(".")), [0, 1])


def test_what_it_returns_is_what_is_trained():
    found = run(GOOD, judged=["good", "bad"])
    assert found.prompts == [[5, 6], [5]]
    assert [c.ids for c in found.completions] == GOOD["completion_ids"]
    assert [c.logps for c in found.completions] == GOOD["logprobs"]
    assert found.columns == {"judged": ["good", "bad"]}
    assert [c.finish_reason for c in found.completions] == ["stop", "stop"]
    assert run({**GOOD, "completion_ids": [[7, 8, 9], [9, STOP]]}).completions[0].finish_reason == "length"


@pytest.mark.parametrize("name", ["env_mask", "completion_mask"])
@pytest.mark.parametrize("logprobs", [[[-1.0, 0.0, -3.0], [-4.0, -5.0]], [[-1.0, -3.0], [-4.0, -5.0]]])
def test_what_it_was_told_is_not_trained(name, logprobs):
    first, second = run(GOOD, logprobs=logprobs, **{name: [[1, 0, 1], [1, 1]]}).completions
    assert first.mask == [True, False, True]
    assert first.logps == [-1.0, -3.0]
    assert second.mask is None


def test_tensors_are_as_good_as_lists():
    both = torch.tensor([[7, STOP], [9, STOP]])
    found = run({"prompt_ids": both, "completion_ids": both, "logprobs": both.float(), "env_mask": None})
    assert found.completions[1].ids == [9, STOP]


def test_it_gets_the_trainer_and_what_it_asks_for_by_name():
    heard = {}

    def roll(prompts, trainer, seeds, turn):
        heard.update(prompts=prompts, trainer=trainer, seeds=seeds)
        done = turn([[5], [6]], seeds)
        return {
            "prompt_ids": [[5], [6]],
            "completion_ids": [c.ids for c in done],
            "logprobs": [c.logps for c in done],
        }

    found = RolloutFunc(roll, stop_ids=[STOP], trainer="me")(ROWS, Policy(TOKENIZER, by_turn("a")), [3, 4])
    assert heard == {"prompts": [row["prompt"] for row in ROWS], "trainer": "me", "seeds": [3, 4]}
    assert len(found.completions) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"logprobs": None}, "without 'logprobs'"),
        ({"completion_ids": [[7]]}, "asked for 2 completions, but 'completion_ids' has 1 entries"),
        ({"judged": ["good"]}, "'judged' has 1 entries"),
        ({"judged": 3}, "'judged' has a int entries"),
        (
            {"logprobs": [[-1.0], [-4.0, -5.0]]},
            "completion 0 has 3 tokens, 3 of them sampled, but 1 logprobs",
        ),
        ({"env_mask": [[1], [1, 1]]}, "completion 0 has 3 tokens but 1 mask entries"),
    ],
)
def test_what_does_not_fit_is_said(change, said):
    with pytest.raises(ValueError, match=said):
        run(GOOD, **change)


def test_something_else_than_a_dict_is_refused():
    with pytest.raises(ValueError, match="rollout_func returned list"):
        RolloutFunc(lambda prompts: [], stop_ids=[])(ROWS, Policy(TOKENIZER, by_turn(".")), [0, 1])


@pytest.mark.parametrize("function", [lambda: {}, lambda a, b, c: {}, 5])
def test_functions_of_another_form_are_refused(function):
    with pytest.raises(TypeError, match="rollout_func must"):
        RolloutFunc(function, stop_ids=[])


def test_arguments_choose_the_driver():
    some = {"max_new_tokens": 9}
    assert isinstance(driver_for(TOKENIZER, **some), OneTurn)
    assert isinstance(driver_for(TOKENIZER, tools=[], **some), OneTurn)
    assert isinstance(driver_for(TOKENIZER, tools=[add], max_iterations=2, **some), ToolLoop)
    own = driver_for(TOKENIZER, rollout_func=lambda prompts: GOOD, **some)
    assert own.stop_ids == {STOP, TOKENIZER.convert_tokens_to_ids("<|im_end|>")}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rollout_func": print, "tools": [add]}, "found rollout_func and tools"),
        ({"rollout_func": print, "environment_factory": dict}, "found rollout_func and environment_factory"),
        ({"max_iterations": 3}, "max_tool_calling_iterations=3 needs tools"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        driver_for(TOKENIZER, max_new_tokens=9, **options)
