"""A bar and the latest figures, drawn by rich: TRL's callback, beside which the live view steps back."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from .samples import plain_cell


class RichProgressCallback(TrainerCallback):
    """Bars of training and evaluation, and a table of each log's figures above them. Trainers have a live view of their own, with
    health and samples, which is not shown beside it.

    `console`: where they go (default: standard error).
    """

    def __init__(self, console: Any = None) -> None:
        self.console = console
        self.bars: Any = None
        self.training: Any = None
        self.evaluation: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        from rich.console import Console
        from rich.progress import Progress

        self.bars = Progress(console=self.console or Console(stderr=True))
        self.training = self.bars.add_task("training", total=state.max_steps, completed=state.global_step)
        self.bars.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bars is not None:
            self.bars.update(self.training, completed=state.global_step)

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        if self.bars is None:
            return
        if self.evaluation is None:
            total = len(eval_dataloader) if hasattr(eval_dataloader, "__len__") else None
            self.evaluation = self.bars.add_task("evaluation", total=total)
        self.bars.advance(self.evaluation)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bars is not None and self.evaluation is not None:
            self.bars.remove_task(self.evaluation)
            self.evaluation = None

    on_predict = on_evaluate

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if self.bars is None or not logs:
            return
        from rich.table import Table
        from rich.text import Text

        table = Table("figure", "value", title=f"step {state.global_step}", box=None)
        for name, value in sorted(logs.items()):
            shown = f"{value:.4g}" if isinstance(value, int | float) else plain_cell(value)
            table.add_row(Text(plain_cell(name)), Text(shown))
        self.bars.console.print(table)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bars is not None:
            self.bars.stop()
            self.bars = self.evaluation = None
