"""A reward that fails ends the run with one message, or is counted and skipped; one that hangs holds up nothing."""

import asyncio
import gc
import math
import subprocess
import sys
import threading
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trellis.rewards import RewardError, RewardSet

CALL = {
    "prompts": ["p"] * 3,
    "completions": ["first", "second", "third"],
    "completion_ids": [[5], [6, 6], [7, 7, 7]],
}


def ones(completions):
    return [1.0] * len(completions)


def returning(value):
    def verdict(completions):
        return value

    return verdict


def raising(error):
    def verdict(completions):
        raise error

    return verdict


bad = st.one_of(
    st.sampled_from([math.nan, math.inf, -math.inf, 1e39, 10**400, 1j, "1.0", b"1", object(), {}, {1.0}]),
    st.text(max_size=5),
    st.lists(st.floats(), min_size=4, max_size=5),
)


@settings(deadline=None, max_examples=150)
@given(value=bad, row=st.integers(0, 2))
def test_every_bad_value_is_named_with_its_function_and_row(value, row):
    returned = [0.5] * 3
    returned[row] = value
    with pytest.raises(
        RewardError, match=rf"^reward 'verdict' returned .* completion {row}, '{CALL['completions'][row]}'"
    ):
        RewardSet([ones, returning(returned)])(**CALL)
    skipped = RewardSet([ones, returning(returned)], on_error="skip")(**CALL)
    assert skipped.failures == {"verdict": 1}
    assert skipped.per_function.isnan().tolist() == [[False, i == row] for i in range(3)]
    assert skipped.total.tolist() == [1.0 if i == row else 1.5 for i in range(3)]


@settings(deadline=None, max_examples=50)
@given(
    value=st.one_of(
        st.none(),
        st.floats(),
        st.text(),
        st.dictionaries(st.text(), st.floats(), max_size=2),
        st.just(object()),
    )
)
def test_what_is_no_list_is_a_failure_of_every_row(value):
    with pytest.raises(RewardError, match="^reward 'verdict' returned .*expected a list of 3"):
        RewardSet(returning(value))(**CALL)
    skipped = RewardSet([returning(value), ones], on_error="skip")(**CALL)
    assert skipped.failures == {"verdict": 3}
    assert skipped.total.tolist() == [1.0] * 3
    assert skipped.applicable.all()


@pytest.mark.parametrize("count", [0, 1, 2, 4, 6])
def test_another_number_of_values_is_a_failure_of_every_row(count):
    assert RewardSet(returning([1.0] * count), on_error="skip")(**CALL).failures == {"verdict": 3}


def test_an_exception_is_told_with_its_last_own_line():
    import json

    def fragile(completions):
        return [json.loads(text) for text in completions]

    with pytest.raises(
        RewardError,
        match=r"'fragile' raised JSONDecodeError.*\(at test_failures.py:\d+: return \[json.loads\(text\)",
    ):
        RewardSet(fragile)(**CALL)


def test_failures_are_counted_each_time_and_told_once(caplog):
    async def away(completions):
        raise OSError("the judge is away")

    rewards = RewardSet([raising(KeyError("b")), away, returning([math.nan, 1.0, math.nan])], on_error="skip")
    for _ in range(2):
        result = rewards(**CALL)
        assert result.failures == {"verdict": 3, "away": 3, "verdict_2": 2}
        assert result.total.tolist() == [0.0, 1.0, 0.0]
        assert result.applicable.tolist() == [False, True, False]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    assert sum("OSError: the judge is away" in line for line in told) == 1


def test_skipped_failures_leave_nothing_to_collect():
    class Judge:
        def __call__(self, completions):
            raise KeyError("b")

    gc.collect()
    gc.disable()
    try:
        judge = Judge()
        seen = weakref.ref(judge)
        rewards = RewardSet(judge, on_error="skip", timeout=20)
        assert rewards(**CALL).failures == {"Judge": 3}
        del judge, rewards
        assert seen() is None
    finally:
        gc.enable()


def test_a_missing_column_is_never_skipped():
    def graded(completions, solution):
        return [0.0] * 3

    with pytest.raises(RewardError, match="'solution'"):
        RewardSet(graded, on_error="skip")(**CALL)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("timeout", [None, 20])
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_what_ends_the_process_passes_through(error, timeout, kind):
    plain = raising(error())

    async def late(completions):
        await asyncio.to_thread(ones, completions)
        return plain(completions)

    rewards = RewardSet([plain if kind == "plain" else late, ones], on_error="skip", timeout=timeout)
    for _ in range(2):
        with pytest.raises(error):
            rewards(**CALL)


class Hanging:
    """Ways to hang until the test is over, and the rewards that do."""

    def __init__(self):
        self.over = threading.Event()
        self.cancelled = threading.Event()
        self.begun = 0

    def plain(self, completions):
        self.begun += 1
        self.over.wait()

    async def waiting(self, completions):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def blocking(self, completions):
        self.over.wait()


@pytest.fixture
def hanging():
    found = Hanging()
    yield found
    found.over.set()


async def quick(completions):
    return [2.0] * len(completions)


@pytest.mark.parametrize("kind", ["plain", "waiting", "blocking"])
def test_a_call_that_hangs_is_left_behind(hanging, kind):
    reward = getattr(hanging, kind)
    with pytest.raises(RewardError, match=f"'{kind}' has not answered within 0.5 s"):
        RewardSet([reward, quick, ones], timeout=0.5)(**CALL)
    rewards = RewardSet([reward, quick, ones], timeout=0.5, on_error="skip")
    rewards(**CALL)
    for _ in range(2):
        result = rewards(**CALL)
        assert result.failures[kind] == 3
        assert result.per_function[:, 2].tolist() == [1.0] * 3
    assert kind != "waiting" or hanging.cancelled.wait(20)


def test_a_loop_that_is_blocked_is_replaced(hanging):
    blocks = [True]

    async def sometimes(completions):
        if blocks.pop():
            hanging.over.wait()
        return [3.0] * len(completions)

    rewards = RewardSet([sometimes, quick], timeout=1.0, on_error="skip")
    assert rewards(**CALL).failures == {"sometimes": 3, "quick": 3}
    blocks.append(False)
    assert rewards(**CALL).total.tolist() == [5.0] * 3


def test_calls_that_hang_are_not_heaped_up(hanging):
    rewards = RewardSet(hanging.plain, timeout=0.05, on_error="skip")
    for _ in range(12):
        assert rewards(**CALL).failures == {"plain": 3}
    assert 0 < hanging.begun <= 8


def test_a_time_limit_changes_no_result_and_async_functions_still_run_together():
    arrived = []
    everybody = threading.Event()

    def meeting(name):
        async def judge(completions):
            arrived.append(name)
            if len(arrived) == 2:
                everybody.set()
            await asyncio.to_thread(everybody.wait)
            return [float(len(c)) for c in completions]

        return judge

    one, two = meeting("one"), meeting("two")
    rewards = RewardSet([one, ones, two, lambda completions: quick(completions)], timeout=20)
    assert rewards(**CALL).per_function.tolist() == [[5, 1, 5, 2], [6, 1, 6, 2], [5, 1, 5, 2]]


@pytest.mark.slow
def test_the_process_ends_although_calls_hang():
    script = (
        "import asyncio, threading\n"
        "from trellis.rewards import RewardSet\n"
        "never = threading.Event()\n"
        "def plain(completions): never.wait()\n"
        "async def threaded(completions): await asyncio.to_thread(never.wait)\n"
        "async def blocking(completions): never.wait()\n"
        "call = dict(prompts=['p'], completions=['c'], completion_ids=[[1]])\n"
        "for f in (plain, threaded, blocking):\n"
        "    print(RewardSet(f, timeout=0.1, on_error='skip')(**call).failures)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["{'plain':", "1}", "{'threaded':", "1}", "{'blocking':", "1}"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_error": "ignore"}, "on_error='ignore'; expected 'raise', or 'skip'"),
        ({"timeout": 0}, "timeout=0; expected seconds > 0"),
        ({"timeout": math.nan}, "timeout=nan"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        RewardSet(ones, **options)
