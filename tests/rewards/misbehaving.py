"""Reward functions as a process of their own sees them: some answer, some do what must not reach the trainer."""

import ctypes
import os
import signal
import subprocess
import sys
import threading

CALLS = []


def length(completions):
    return [float(len(c)) for c in completions]


def calls(completions):
    CALLS.append(len(completions))
    return [float(len(CALLS))] * len(completions)


def process(completions):
    return [float(os.getpid())] * len(completions)


async def later(completions, level=None):
    return [len(c) * (level or [1] * len(completions))[0] for c in completions]


def noting(completions, log_extra, log_metric, trainer_state, **columns):
    log_extra("seen", [c.strip() for c in completions])
    log_metric("step", trainer_state.global_step)
    return [None, [1.0, 2.0], 3]


def leaves(completions):
    os._exit(3)


def exits(completions):
    sys.exit("enough")


def crashes(completions):
    if completions[0] == "fine":
        return [1.0] * len(completions)
    return ctypes.string_at(0)


def raises(completions):
    return [1 / 0 for _ in completions]


def eats(completions):
    return [float(len(bytearray(4 << 30)))] * len(completions)


def hangs(completions):
    """As do the processes that it starts."""
    if completions[0] == "fine":
        return [1.0] * len(completions)
    subprocess.Popen(
        [sys.executable, "-c", f"# {completions[0]}\nimport threading; threading.Event().wait()"]
    )
    return threading.Event().wait()


def wrong(completions):
    return {"a": object()}


def loaded(completions):
    return [float("torch" in sys.modules)] * len(completions)


def kills(completions):
    """The trainer, and then hangs."""
    os.kill(os.getppid(), signal.SIGKILL)
    return threading.Event().wait()
