"""A reward in a process of its own: what happens there is one error here, and nothing is left behind."""

import gc
import os
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from tests.rewards import misbehaving
from trellis.rewards import RewardError, RewardSet, isolated

CALL = {"prompts": ["p"] * 3, "completions": [" a", " bb", " ccc"], "completion_ids": [[1], [2, 2], [3]]}
FINE = {**CALL, "completions": ["fine"] * 3}


def processes(word):
    """The processes whose command line contains `word`."""
    lines = (p.joinpath("cmdline") for p in Path("/proc").iterdir() if p.name.isdigit())
    return [line for line in lines if word.encode() in _read(line)]


def _read(path):
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def gone(pid):
    """No process, or one that has ended and waits to be noticed."""
    return _read(Path(f"/proc/{int(pid)}/cmdline")) == b""


def test_it_answers_as_the_function_does_and_keeps_its_process():
    rewards = RewardSet([isolated(misbehaving.length), isolated("tests.rewards.misbehaving.calls")])
    assert rewards.names == ["length", "calls"]
    assert rewards(**CALL).per_function.tolist() == [[2, 1], [3, 1], [4, 1]]
    assert rewards(**CALL).per_function.tolist() == [[2, 2], [3, 2], [4, 2]]
    assert misbehaving.CALLS == []


def test_arguments_notes_and_kinds_of_answers_pass_through():
    alone = isolated(misbehaving.noting)
    state = types.SimpleNamespace(global_step=7, callbacks=[threading.Lock()])
    result = RewardSet([alone, isolated(misbehaving.later)])(
        **CALL, state=state, columns={"level": [2, 2, 2]}
    )
    assert result.per_function.isnan().tolist() == [[True, False], [False, False], [False, False]]
    assert result.per_function[1:].tolist() == [[3, 6], [3, 8]]
    assert [t.tolist() for t in result.per_token] == [[4], [1, 8], [11]]
    assert result.extra == {"seen": ["a", "bb", "ccc"]}
    assert result.logged == {"step": [7.0]}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (misbehaving.leaves, "'leaves': its process ended with exit code 3"),
        (misbehaving.exits, "'exits': its process ended with exit code 1"),
        (misbehaving.crashes, "'crashes': its process was ended by SIGSEGV"),
        (misbehaving.raises, r"'raises' raised ZeroDivisionError.*\(at misbehaving.py:\d+: return \[1 / 0"),
        (misbehaving.wrong, r"'wrong' returned \"\{'a': <object.*\(str\); expected a list of 3"),
    ],
)
def test_what_happens_there_is_one_error_here(function, words):
    rewards = RewardSet(isolated(function))
    for _ in range(2):  # and the next call gets an answer of its own
        with pytest.raises(RewardError, match=words):
            rewards(**CALL)


def test_after_a_crash_the_next_call_is_answered():
    rewards = RewardSet([isolated(misbehaving.crashes), misbehaving.length], on_error="skip")
    assert rewards(**FINE).total.tolist() == [5, 5, 5]
    skipped = rewards(**CALL)
    assert skipped.failures == {"crashes": 3}
    assert skipped.total.tolist() == [2, 3, 4]
    again = rewards(**FINE)
    assert again.total.tolist() == [5, 5, 5]
    assert again.failures == {}


def test_memory_is_limited():
    with pytest.raises(RewardError, match="'eats' raised MemoryError"):
        RewardSet(isolated(misbehaving.eats, memory_mb=1024))(**CALL)


@pytest.mark.parametrize("who", ["isolated", "set"])
def test_a_call_that_hangs_is_ended_with_all_that_it_started(who):
    word = f"trellis-hanging-{who}-{os.getpid()}"
    one = isolated(misbehaving.hangs, timeout=1.0 if who == "isolated" else None)
    rewards = RewardSet(one, timeout=1.0 if who == "set" else None)
    with pytest.raises(RewardError, match="'hangs' has not answered within 1 s"):
        rewards(**{**CALL, "completions": [word] * 3})
    end = time.monotonic() + 30  # whoever was killed is there until the system has got round to it
    while processes(word) and time.monotonic() < end:
        os.sched_yield()
    assert processes(word) == []
    assert rewards(**FINE).total.tolist() == [1, 1, 1]


def test_no_process_is_left_behind():
    rewards = RewardSet(isolated(misbehaving.process))
    pid = int(rewards(**CALL).total[0])
    assert not gone(pid)
    del rewards
    gc.collect()
    assert gone(pid)


@pytest.mark.parametrize("function", ["process", "kills"])
def test_it_ends_with_a_trainer_that_was_killed(function):
    script = (
        "import os, signal\n"
        "from trellis.rewards import isolated\n"
        f"alone = isolated('tests.rewards.misbehaving.{function}')\n"
        "alone(completions=['x'])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The pipe ends when the last process that holds it has ended: the trainer's, the function's, and what that started.
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == -9


def test_the_process_needs_no_torch():
    alone = isolated("tests.rewards.misbehaving.loaded")
    assert alone(completions=["x"]) == [0.0]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("tests.rewards.misbehaving.nothing", "no attribute 'nothing'.*expected a function at the top"),
        ("tests.rewards.misbehaving.CALLS", "is list; expected a function"),
        ("no_such_module.f", "No module named 'no_such_module'"),
        ("short", "expected package.module.function"),
        (lambda completions: [1.0], "cannot be sent to another process.*dotted name"),
    ],
)
def test_what_cannot_be_loaded_there_is_said_at_once(function, words):
    with pytest.raises(ValueError, match=words):
        isolated(function)


def test_a_function_of_the_running_script_is_refused():
    made = types.FunctionType(compile("1", "x", "eval"), {}, "mine")
    made.__module__ = "__main__"
    with pytest.raises(ValueError, match=r"'mine' is defined in the script that runs.*my_rewards.py"):
        isolated(made)


def test_an_argument_that_cannot_be_sent_is_named():
    rewards = RewardSet(isolated(misbehaving.noting))
    with pytest.raises(RewardError, match="'noting' is isolated, and its argument 'environments' cannot"):
        rewards(**CALL, columns={"environments": [threading.Lock()] * 3})
