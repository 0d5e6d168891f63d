"""Runs that hang end by themselves and say where; each is a process of its own."""

import os
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import warm
from tests.ranks import places
from trellis.trainers.watchdog import EXIT_HUNG, Watchdog

SCRIPT = Path(__file__).with_name("hang.py")


@contextmanager
def ended(folder, how):
    """A process of `hang.py`, which is gone afterwards whatever it did."""
    with started(folder, how) as child:
        try:
            yield child
        finally:
            child.kill()


def started(folder, how, **environment):
    """A process of `hang.py`; what it says on stderr can be read."""
    return warm.start(SCRIPT, folder, how, env={**os.environ, **environment})


def test_a_reward_that_never_answers(tmp_path):
    """Fault: a reward function never answers (`hang_timeout` is set)
    Then: the run ends with status 124, after it said step, rank and phase and where every thread was
    """
    with ended(tmp_path, "waits") as child:
        _, said = child.communicate(timeout=200)
    assert child.returncode == EXIT_HUNG == 124
    assert "step 1, rank 0 of 1, while asking the rewards (hang_timeout=4)" in said
    assert 'hang.py", line' in said, "the stacks name the user's function"
    assert " in waits" in said


def test_code_that_lets_no_thread_run(tmp_path):
    """Fault: a reward function hangs in C code that lets no other thread run
    Then: the run ends all the same, with the stacks
    """
    with ended(tmp_path, "holds") as child:
        _, said = child.communicate(timeout=200)
    assert child.returncode == 1
    assert " in holds_everything" in said


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_one_of_two_ranks_is_gone(how, tmp_path):
    """Fault: one of two processes is stopped, or killed, in the middle of a step
    Then: the other ends by itself; where it would wait for ever, it says rank, step and phase
    """
    ranks = [started(tmp_path, how, **place) for place in places(2)]
    try:
        _, said = ranks[0].communicate(timeout=200)
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
            rank.close()
    if how == "stopped":
        assert ranks[0].returncode == EXIT_HUNG
        assert "step 3, rank 0 of 2, while training" in said
    assert ranks[0].returncode != 0


def test_only_a_warning(capfd):
    """Fault: nothing moves for `hang_timeout` seconds, with `on_hang="warn"`
    Then: it is said, each time anew, and the run goes on
    """
    args = SimpleNamespace(hang_timeout=0.2, on_hang="warn", process_index=0, world_size=1)
    watchdog = Watchdog(SimpleNamespace(args=args, state=SimpleNamespace(global_step=7)))
    with watchdog.running():
        watchdog.beat("sampling")
        threading.Event().wait(0.8)
    said = capfd.readouterr().err
    assert said.count("nothing has moved for 0 s: step 8, rank 0 of 1, while sampling") >= 2
    assert "trellis-watchdog" not in [thread.name for thread in threading.enumerate()]


def test_a_run_that_moves_is_left_alone(capfd):
    args = SimpleNamespace(hang_timeout=0.4, on_hang="stop", process_index=0, world_size=1)
    watchdog = Watchdog(SimpleNamespace(args=args, state=SimpleNamespace(global_step=7)))
    with watchdog.running():
        for _ in range(8):
            watchdog.beat("training")
            threading.Event().wait(0.1)
    assert capfd.readouterr().err == ""
