"""Runs that hang, each a process of its own: `python tests/faults/hang.py FOLDER HOW`."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading

from tests.faults.spoiled import Kill, spoiled
from tests.resume import cases


def waits(completions: list[str], **columns: object) -> list[float]:
    """A reward that never answers."""
    print("asked", flush=True)
    threading.Event().wait()
    return []


def holds_everything(completions: list[str], **columns: object) -> list[float]:
    """A reward in C code that never answers and lets no other thread run."""
    ctypes.PyDLL(None).pause()
    return []


def main(folder: str, how: str) -> None:
    """Train, until it hangs."""
    if how in ("stopped", "killed"):
        trainer = spoiled(folder, marked=(), hang_timeout=8, ddp_backend="gloo")
        number = signal.SIGSTOP if how == "stopped" else signal.SIGKILL
        trainer.add_callback(Kill(number, step=3, rank=1))
    else:
        cases.long_words = holds_everything if how == "holds" else waits
        trainer = cases.ppo(folder, hang_timeout=None if how == "signalled" else 4)
    trainer.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
