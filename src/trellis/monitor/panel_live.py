"""The live view of a training: a panel that is drawn anew in place on a terminal, a line per log elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from .panel import Board, line, panel
from .rich_progress import RichProgressCallback

PAUSE = 0.25
"""Seconds between two drawings, at least."""
PER_SECOND = {"episode": "episodes", "num_tokens": "tokens"}
"""Figures of a log that count up, and what they count."""


class LiveView(TrainerCallback):
    """Shows a training on the first process, in place of transformers' own bar and printer (`live_view=False` keeps those).

    `console`: where a panel goes (default: standard error, where that is a terminal).
    """

    def __init__(self, trainer: Any, method: str, console: Any = None) -> None:
        self.trainer, self.console = trainer, console
        self.board = Board(method)
        self.started, self.drawn = time.monotonic(), 0.0
        self.before: dict[str, float] = {}
        self.at_log = self.started
        self._live: Any = None
        self.way = self._chosen()
        if self.way != "off":
            self._take_over()

    def _chosen(self) -> str:
        """How to show: a `panel`, `lines`, or `off`."""
        args = self.trainer.args
        if args.live_view is False or not self.trainer.is_world_process_zero():
            return "off"
        # Who silences progress bars wants no panel either, unless it is asked for.
        on_terminal = sys.stderr.isatty() and not args.disable_tqdm
        return "panel" if args.live_view or on_terminal or self.console is not None else "lines"

    def _take_over(self) -> None:
        callbacks = self.trainer.callback_handler.callbacks
        theirs = [c for c in callbacks if type(c) in (ProgressCallback, PrinterCallback)]
        if theirs:  # the last one is what transformers adds; one before it is the user's own
            callbacks.remove(theirs[-1])

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, the panel stands (where there is one); whatever happens, the terminal is given back."""
        try:
            yield
        finally:
            self._end()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started = self.at_log = time.monotonic()
        self.before = {}
        self.board = Board(
            self.board.method, step=state.global_step, steps=state.max_steps, at_start=state.global_step
        )
        for logs in state.log_history:
            self.board.add(logs)
        self.trainer.watchdog.spent.clear()
        others = self.trainer.callback_handler.callbacks
        if self.way != "off" and any(isinstance(other, RichProgressCallback) for other in others):
            self.way = "off"
        if self.way == "panel":
            self._begin()

    def _begin(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = self.console or Console(stderr=True)
        self.console = console
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._live.start()

    def _end(self) -> None:
        if self._live is not None:
            self._draw(now=True)
            self._live.stop()
            self._live = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._read(state)
        self._draw()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if not logs or self.way == "off" or not state.is_world_process_zero:
            return
        self._measure(logs)
        self.board.add(logs)
        self._read(state)
        if self.way == "lines":
            print(line(self.board, logs) if "train_loss" not in logs else over(logs, state), flush=True)
        else:
            self._draw(now=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._read(state)
        self._end()

    def _measure(self, logs: dict[str, Any]) -> None:
        """Episodes and tokens per second since the last log."""
        now = time.monotonic()
        counts = {name: float(logs[name]) for name in PER_SECOND if name in logs}
        if not counts:
            return
        passed = max(now - self.at_log, 1e-9)
        found = {PER_SECOND[n]: (x - self.before[n]) / passed for n, x in counts.items() if n in self.before}
        if "episodes" in found and "num_tokens" not in logs and "response/length" in logs:
            found["tokens"] = found["episodes"] * logs["response/length"]
        self.board.speeds = found or self.board.speeds
        self.before, self.at_log = counts, now

    def _read(self, state: Any) -> None:
        board, trainer = self.board, self.trainer
        board.step, board.steps = state.global_step, state.max_steps
        board.seconds = time.monotonic() - self.started
        board.spent = trainer.watchdog.spent
        board.samples = getattr(getattr(trainer, "collector", None), "shown", ())
        board.health = trainer.health.open if trainer.args.health else None

    def _draw(self, *, now: bool = False) -> None:
        if self._live is None or not (now or time.monotonic() - self.drawn >= PAUSE):
            return
        self.drawn = time.monotonic()
        self._live.update(panel(self.board, min(self.console.width, 120)), refresh=True)


def over(logs: dict[str, Any], state: Any) -> str:
    """The last line of a training."""
    return f"{state.global_step} steps in {logs['train_runtime']:.4g} s, mean loss {logs['train_loss']:.4g}"
