"""One progress bar for a stage of work, with the few numbers that matter."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from .panel_live import LiveView


class Progress(TrainerCallback):
    """A bar over the optimizer steps with the latest of `names` beside it; off a terminal, a line at every tenth of the way."""

    def __init__(self, title: str, names: Sequence[str] = ("loss",)) -> None:
        self.title, self.names = title, names
        self.bar: Any = None

    def attach(self, trainer: Any) -> Progress:
        """Take the place of the trainer's own bar and printer, and of its live view."""
        for other in (ProgressCallback, PrinterCallback, LiveView):
            trainer.remove_callback(other)
        trainer.add_callback(self)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        from tqdm import tqdm

        tty = sys.stderr.isatty()
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self.title,
            unit="step",
            dynamic_ncols=tty,
            ncols=None if tty else 100,
            mininterval=0.2 if tty else 1e9,
            miniters=1 if tty else max(1, state.max_steps // 10),
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is None:
            return
        self.bar.update(state.global_step - self.bar.n)
        if not sys.stderr.isatty() and self._tenth(state.global_step, state.max_steps):
            self.bar.refresh()

    @staticmethod
    def _tenth(step: int, steps: int) -> bool:
        return step * 10 // steps != (step - 1) * 10 // steps

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if self.bar is None or not logs:
            return
        shown = {
            n.split("/")[-1]: f"{logs[n]:.3f}" for n in self.names if isinstance(logs.get(n), int | float)
        }
        if shown:
            self.bar.set_postfix(shown, refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
