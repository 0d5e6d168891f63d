"""A run that has stopped moving says where, and ends."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EXIT_HUNG = 124
"""What timeout(1) ends with."""
STDERR = 2


class Watchdog:
    """Ends the process (or only says so) when no `beat` came for `hang_timeout` seconds: step, rank, phase and all stacks.

    `heard`: who else is told of every phase; `spent`: seconds in each so far.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.phase, self.at = "starting", time.monotonic()
        self.around = ""
        self.spent: Counter[str] = Counter()
        self.heard: Callable[[str], None] | None = None

    def beat(self, phase: str) -> None:
        """The run has come to `phase`."""
        now = time.monotonic()
        self.spent[self.phase.partition(":")[0]] += now - self.at  # type: ignore[assignment]
        self.phase = phase if self.around in ("", phase) else f"{self.around}: {phase}"
        self.at = now
        if self.heard is not None:
            self.heard(self.phase)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Inside, the run is at `phase`, and what it comes to there is a part of that; after, it is where it was."""
        before, around = self.phase, self.around
        self.beat(phase)
        self.around = self.phase
        try:
            yield
        finally:
            self.around = around
            self.beat(before.removeprefix(f"{around}: "))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside, somebody watches (where `hang_timeout` is set)."""
        timeout, over = self.trainer.args.hang_timeout, threading.Event()
        if timeout is None:
            yield
            return
        self.beat("starting")
        self._arm(timeout)  # the first thing that hangs may let no thread start
        watch = threading.Thread(
            target=self._watch, args=(timeout, over), daemon=True, name="trellis-watchdog"
        )
        watch.start()
        try:
            yield
        finally:
            over.set()
            watch.join()
            faulthandler.cancel_dump_traceback_later()

    def _arm(self, timeout: float) -> bool:
        """Where a hang is to end the run: end it even if code never lets another thread run. Says whether it is."""
        ends = self.trainer.args.on_hang == "stop"
        if ends:
            faulthandler.dump_traceback_later(2 * timeout + 1, exit=True, file=STDERR)
        return bool(ends)

    def _watch(self, timeout: float, over: threading.Event) -> None:
        ends = self._arm(timeout)
        while not over.wait(min(1.0, timeout / 4)):
            self._arm(timeout)
            quiet = time.monotonic() - self.at
            if quiet > timeout:
                self._report(quiet)
                if ends:
                    os._exit(EXIT_HUNG)
                self.at = time.monotonic()

    def _report(self, quiet: float) -> None:
        args = self.trainer.args
        said = (
            f"trellis: nothing has moved for {quiet:.0f} s: step {self.trainer.state.global_step + 1}, rank {args.process_index} "
            f"of {args.world_size}, while {self.phase} (hang_timeout={args.hang_timeout}). Where every thread is:\n"
        )
        # Past Python's streams: whoever hangs may hold their locks.
        os.write(STDERR, said.encode())
        faulthandler.dump_traceback(file=STDERR)
