"""A run at a glance: its curves, speed, last samples and health, as a panel for a terminal or as one plain line."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .health import Event
from .samples import plain_cell

CURVES = {
    "sft": ("loss", "mean_token_accuracy", "entropy", "eval_loss"),
    "reward": ("loss", "accuracy", "margin", "eval_accuracy"),
    "dpo": ("loss", "rewards/accuracies", "rewards/margins", "eval_loss"),
    "cpo": ("loss", "rewards/accuracies", "rewards/margins", "eval_loss"),
    "orpo": ("loss", "rewards/accuracies", "rewards/margins", "eval_loss"),
    "kto": ("loss", "rewards/margins", "kl", "eval_loss"),
    "ppo": ("objective/scores", "objective/kl", "policy/entropy_avg", "response/length", "val/explained_variance"),
    "rloo": ("reward", "reward_std", "kl", "entropy", "completions/mean_length"),
    "grpo": ("reward", "reward_std", "kl", "entropy", "completions/mean_length"),
}  # fmt: skip
"""What is shown of a method, where it is logged."""
BARS = "▁▂▃▄▅▆▇█"
KEPT = 2000
"""Values of a curve that are kept."""
PHASES = {
    "sample": ("sampling",),
    "score": ("scoring", "asking the rewards"),
    "learn": ("training", "taking the step"),
    "evaluate": ("evaluating",),
    "save": ("saving",),
}
"""The watchdog's phases, by the name they have in the panel; what is left is `other`."""
SAMPLES = 2


@dataclass
class Board:
    """All that is shown. `at_start`: the step this process began at; `spent`: seconds per phase; `speeds`: figures per second."""

    method: str
    step: int = 0
    steps: int = 0
    at_start: int = 0
    seconds: float = 0.0
    spent: Mapping[str, float] = field(default_factory=dict)
    speeds: Mapping[str, float] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()
    health: Mapping[str, Event] | None = None
    curves: dict[str, deque[float]] = field(default_factory=dict)

    def add(self, logs: Mapping[str, Any]) -> None:
        """The curves' next values."""
        for name in CURVES.get(self.method, ("loss",)):
            value = logs.get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                self.curves.setdefault(name, deque(maxlen=KEPT)).append(float(value))

    def left(self) -> float | None:
        """Seconds until the end, at the pace so far."""
        done = self.step - self.at_start
        return self.seconds / done * (self.steps - self.step) if done > 0 else None

    def shares(self) -> dict[str, float]:
        """The part of the time that each kind of work took, the largest first."""
        whole = sum(self.spent.values())
        if whole <= 0:
            return {}
        found = {name: sum(self.spent.get(p, 0.0) for p in parts) / whole for name, parts in PHASES.items()}
        found["other"] = max(0.0, 1 - sum(found.values()))
        return {n: x for n, x in sorted(found.items(), key=lambda pair: -pair[1]) if x >= 0.005}


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as at most `width` bars between their lowest and highest; more values are averaged."""
    values = list(values)
    if len(values) > width:
        cuts = [i * len(values) // width for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
    if not values:
        return ""
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((x - low) * scale)] if scale else BARS[3] for x in values)


def clock(seconds: float | None) -> str:
    """h:mm:ss, or a dash where nobody knows."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def speed(board: Board) -> str:
    """How fast the run is, and what its time goes to."""
    told = [f"{value:,.{1 if value < 100 else 0}f} {name}/s" for name, value in board.speeds.items()]
    split = " ".join(f"{name} {share:.0%}" for name, share in board.shares().items())
    return " · ".join([*told, *([split] if split else [])])


def line(board: Board, logs: Mapping[str, Any]) -> str:
    """One log as a line of text: the step, the method's figures, speed and time left."""
    names = [n for n in CURVES.get(board.method, ("loss",)) if n in logs]
    names += [n for n in logs if n.startswith("eval_") and n not in names and not n.endswith("_second")]
    if "loss" in logs and "loss" not in names:
        names.insert(0, "loss")
    figures = [f"{n} {_figure(logs[n])}" for n in names]
    told = [f"{value:,.1f} {name}/s" for name, value in board.speeds.items()]
    ahead = [f"{clock(board.left())} left"] if board.steps > board.step else []
    sick = [f"health: {', '.join(board.health)}"] if board.health else []
    return "  ".join([f"step {board.step}/{board.steps}", *figures, *told, *ahead, *sick])


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def panel(board: Board, width: int = 100) -> Any:
    """The panel, as something that rich prints."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    inner = max(20, width - 4)
    head = Table.grid(padding=(0, 1), expand=True)
    head.add_column(ratio=1)
    head.add_column(no_wrap=True)
    head.add_column(no_wrap=True)
    head.add_row(
        ProgressBar(total=max(board.steps, 1), completed=board.step),
        Text(f"{clock(board.seconds)} gone"),
        Text(f"{clock(board.left())} left"),
    )
    parts: list[Any] = [head, Text(speed(board), overflow="ellipsis", no_wrap=True)]
    if board.curves:
        parts.append(_curves(board, inner))
    parts += [_sample(row, inner) for row in board.samples[:SAMPLES]]
    parts += _health(board)
    title = f"trellis {board.method} · step {board.step:,} of {board.steps:,}"
    return Panel(Group(*parts), title=Text(title), width=width)


def _curves(board: Board, width: int) -> Any:
    from rich.table import Table
    from rich.text import Text

    longest = max(map(len, board.curves))
    grid = Table.grid(padding=(0, 1))
    for name, values in board.curves.items():
        bars = sparkline(values, max(8, width - longest - 12))
        grid.add_row(Text(name), Text(f"{values[-1]:.4g}", justify="right"), Text(bars, style="cyan"))
    return grid


def _sample(row: Mapping[str, Any], width: int) -> Any:
    from rich.text import Text

    score = f"{row['score']:.3g} " if "score" in row else ""
    words = {name: " ".join(plain_cell(row.get(name, "")).split()) for name in ("prompt", "completion")}
    room = max(10, (width - len(score) - 3) // 3)
    asked = words["prompt"] if len(words["prompt"]) <= room else f"…{words['prompt'][1 - room :]}"
    text = Text(overflow="ellipsis", no_wrap=True)
    text.append(score, style="bold")
    text.append(asked, style="dim")
    return text.append(f" → {words['completion']}")


def _health(board: Board) -> list[Any]:
    from rich.text import Text

    if board.health is None:
        return []
    if not board.health:
        return [Text("health: nothing found", style="green")]
    return [
        Text(f"{event.name} (step {event.step}): {event.message}. {event.advice}".strip(), style="bold red")
        for event in board.health.values()
    ]
