"""SIGTERM and SIGINT: the optimizer step in progress is finished and saved, and the process says that it can be resumed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback

EXIT_RESUMABLE = 75
"""EX_TEMPFAIL of sysexits.h: started again with `resume_from_checkpoint=True`, the run goes on where it was."""
CAUGHT = (signal.SIGTERM, signal.SIGINT)
ECHO = 0.5
"""Seconds in which a second signal counts as the first: launchers pass on what the whole process group got already."""


class Preempted(SystemExit, KeyboardInterrupt):
    """A signal ended training at a step boundary; `checkpoint` is where it goes on. Uncaught, the process ends with status 75."""

    def __init__(self, name: str, checkpoint: str) -> None:
        super().__init__(EXIT_RESUMABLE)
        self.signal, self.checkpoint = name, checkpoint


class Signals:
    """What this process was told to do; `agreed`: all ranks know that one of them was told to stop."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.received: signal.Signals | None = None
        self.at = 0.0
        self.agreed = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Inside, the first signal is noted and the second ends the process. Handlers of the user's own stay what they are."""
        self.received, self.agreed = None, False
        before: dict[signal.Signals, Any] = {}
        if self.trainer.args.save_on_signal and threading.current_thread() is threading.main_thread():
            own = (signal.SIG_DFL, signal.default_int_handler)
            before = {number: found for number in CAUGHT if (found := signal.getsignal(number)) in own}
        for number in before:
            signal.signal(number, self._receive)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        if self.received is not None and time.monotonic() - self.at > ECHO:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if self.received is None:
            self.received, self.at = signal.Signals(number), time.monotonic()
            said = f"trellis: {self.received.name}: saving after this step; a second signal ends the run at once\n"
            os.write(2, said.encode())

    def agree(self, any_rank: bool) -> None:
        """At the end of a step: whether any rank has received a signal."""
        self.agreed = self.agreed or any_rank


class Boundary(TrainerCallback):
    """At the boundary after a signal: save, without the evaluation that may be due, then leave training."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        signals = self.trainer.signals
        if args.world_size == 1:
            signals.agree(signals.received is not None)
        if signals.agreed:
            control.should_save, control.should_evaluate = True, False

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        signals, saved = self.trainer.signals, self.trainer.saving.last
        if not signals.agreed:
            return
        name = "a signal to another process" if signals.received is None else signals.received.name
        if args.process_index == 0:
            print(
                f"trellis: {name}: stopped after step {state.global_step}, saved {saved}; resume_from_checkpoint=True goes on "
                f"there (exit status {EXIT_RESUMABLE})",
                file=sys.stderr,
            )
        raise Preempted(name, str(saved))
