"""Reward functions: called with what they declare, alone or together, plain or async."""

import asyncio
import functools
import math
import threading

import pytest
import torch

from trellis.rewards import RewardError, RewardSet

CALL = {
    "prompts": ["one", "two", "three"],
    "completions": [" a", " bb", " ccc"],
    "completion_ids": [[1], [2, 2], [3, 3, 3]],
    "columns": {"answer": ["a", "b", "c"], "level": [1, 2, 3]},
}


def length(completions):
    return [float(len(c)) for c in completions]


def test_one_function():
    result = RewardSet(length)(**CALL)
    assert result.total.tolist() == [2.0, 3.0, 4.0]
    assert result.total.dtype == result.per_function.dtype == torch.float32
    assert result.per_function.tolist() == [[2.0], [3.0], [4.0]]
    assert result.per_token is None
    assert result.applicable.all()


def test_a_function_gets_what_it_declares():
    def exact(prompts, completions, completion_ids, trainer_state, answer, *, level, other=7):
        assert (prompts, completions, completion_ids, answer) == (
            CALL["prompts"],
            CALL["completions"],
            CALL["completion_ids"],
            CALL["columns"]["answer"],
        )
        assert trainer_state == "state"
        assert other == 7
        return level

    def rest(completions, **kwargs):
        loggers = ["log_extra", "log_metric"]
        assert sorted(kwargs) == ["answer", "completion_ids", "level", *loggers, "prompts", "trainer_state"]
        return [len(c) for c in completions]

    def first_and_rest(answer, **kwargs):
        return [ord(a) for a in answer]

    class Judge:
        def __call__(self, prompts, completions):
            return [len(p) for p in prompts]

    def scaled(completions, by):
        return [by * len(c) for c in completions]

    functions = [exact, rest, first_and_rest, Judge(), functools.partial(scaled, by=10), lambda level: level]
    rewards = RewardSet(functions)
    assert rewards.names == ["exact", "rest", "first_and_rest", "Judge", "scaled", "<lambda>"]
    result = rewards(**CALL, state="state")
    assert result.per_function.tolist() == [
        [1, 2, 97, 3, 20, 1],
        [2, 3, 98, 3, 30, 2],
        [3, 4, 99, 5, 40, 3],
    ]


def test_a_missing_column_is_named_before_anything_runs():
    def graded(completions, solution):
        raise AssertionError("not to be called")

    rewards = RewardSet(graded)
    with pytest.raises(
        RewardError, match=r"'graded' needs the argument 'solution', found the columns \['answer', 'level'\]"
    ):
        rewards.check(["answer", "level"])
    with pytest.raises(RewardError, match="'solution'"):
        rewards(**CALL)
    rewards.check(["solution"])


def test_weights_and_names():
    rewards = RewardSet([length, length, lambda completions: [1, None, 1]], weights=[1.0, -0.5, 10.0])
    assert rewards.names == ["length", "length_2", "<lambda>"]
    result = rewards(**CALL)
    assert result.total.tolist() == [11.0, 1.5, 12.0]


def test_not_applicable():
    rewards = RewardSet([lambda completions: [None, 1.0, None], lambda completions: [2.0, None, None]])
    result = rewards(**CALL)
    assert result.total.tolist() == [2.0, 1.0, 0.0]
    assert result.per_function.isnan().tolist() == [[True, False], [False, True], [True, True]]
    assert result.applicable.tolist() == [True, True, False]


def test_rewards_per_token_land_on_their_tokens():
    def tokens(completion_ids):
        return [[1.0], torch.tensor([0.25, -1.0]), None]

    result = RewardSet([tokens, length], weights=[2.0, 1.0])(**CALL)
    assert result.per_function[:2].tolist() == [[1.0, 2.0], [-0.75, 3.0]]
    assert math.isnan(result.per_function[2, 0])
    assert result.total.tolist() == [4.0, 1.5, 4.0]
    assert [t.tolist() for t in result.per_token] == [[4.0], [0.5, 1.0], [0.0, 0.0, 4.0]]
    assert [float(t.sum()) for t in result.per_token] == result.total.tolist()


def test_one_tensor_for_all_rows():
    assert RewardSet(lambda completions: torch.arange(3))(**CALL).total.tolist() == [0.0, 1.0, 2.0]


def test_async_functions_run_together():
    class Meeting:
        """Both calls must be under way at once, or neither ends."""

        def __init__(self):
            self.arrived = 0
            self.all_here = None

        async def wait(self):
            self.all_here = self.all_here or asyncio.Event()
            self.arrived += 1
            if self.arrived == 2:
                self.all_here.set()
            await asyncio.wait_for(self.all_here.wait(), 20)

    meeting = Meeting()

    async def judge(completions):
        await meeting.wait()
        return [1.0] * len(completions)

    class Grader:
        async def __call__(self, prompts):
            await meeting.wait()
            return [len(p) for p in prompts]

    rewards = RewardSet([judge, length, Grader(), lambda completions: judge(completions)])
    meeting.arrived = -1
    assert rewards(**CALL).per_function.tolist() == [[1, 2, 3, 1], [1, 3, 3, 1], [1, 4, 5, 1]]


def test_async_functions_work_inside_a_running_loop():
    async def judge(completions):
        return [1.0] * len(completions)

    async def notebook():
        return RewardSet(judge)(**CALL).total.tolist()

    assert asyncio.run(notebook()) == [1.0, 1.0, 1.0]


def test_the_loop_lives_as_long_as_the_rewards():
    loops, threads = [], []

    async def judge(completions):
        loops.append(asyncio.get_running_loop())
        threads.append(threading.current_thread())
        return [1.0] * len(completions)

    rewards = RewardSet(judge)
    rewards(**CALL)
    rewards(**CALL)
    assert loops[0] is loops[1]
    del rewards
    threads[0].join(timeout=20)
    assert not threads[0].is_alive()
    assert loops[0].is_closed()


def test_an_exception_is_raised_again_with_the_name_and_a_sample():
    def fragile(completions, answer):
        return [{"a": 1.0}[a] for a in answer]

    async def broken(completions):
        raise OSError("the judge is away")

    with pytest.raises(
        RewardError, match="'fragile' raised KeyError: 'b'.*3 completions, the first is ' a'"
    ) as caught:
        RewardSet(fragile)(**CALL)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(RewardError, match="'broken' raised OSError: the judge is away"):
        RewardSet([length, broken])(**CALL)


def test_a_failing_function_leaves_no_async_one_waiting():
    cancelled = threading.Event()

    async def slow(completions):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def fails(completions):
        raise OverflowError("too much")

    rewards = RewardSet([slow, fails])
    with pytest.raises(RewardError, match="too much"):
        rewards(**CALL)
    assert cancelled.wait(20)


def test_functions_cannot_change_each_others_arguments():
    def greedy(completions, answer):
        completions.clear()
        answer.append("x")
        return [0.0, 0.0, 0.0]

    result = RewardSet([greedy, length, lambda answer: [len(answer)] * 3])(**CALL)
    assert result.per_function.tolist() == [[0, 2, 3], [0, 3, 3], [0, 4, 3]]
    assert CALL["completions"] == [" a", " bb", " ccc"]


def test_no_completions():
    result = RewardSet([length, length])(prompts=[], completions=[], completion_ids=[])
    assert result.total.shape == (0,)
    assert result.per_function.shape == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"reward_funcs": []}, ValueError, "reward_funcs is empty"),
        ({"reward_funcs": 3}, TypeError, "found int"),
        (
            {"reward_funcs": [length], "weights": [1.0, 2.0]},
            ValueError,
            "1 rewards need 1 reward_weights, found 2",
        ),
        ({"reward_funcs": [length], "weights": [math.nan]}, ValueError, "must be finite"),
        (
            {"reward_funcs": [length], "processing_classes": [None, None]},
            ValueError,
            "need 1 processing classes",
        ),
        ({"reward_funcs": dict}, TypeError, "signature of reward 'dict'"),
    ],
)
def test_bad_rewards_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        RewardSet(**arguments)


def test_positional_only_arguments_are_refused():
    def old(completions, /):
        return [0.0] * len(completions)

    with pytest.raises(TypeError, match="'old' takes positional-only"):
        RewardSet(old)


def test_lists_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 completions need 3 answer, found 1"):
        RewardSet(length)(**{**CALL, "columns": {"answer": ["a"]}})
