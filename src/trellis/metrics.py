"""Exact averages: metrics travel as (sum, count), are added over micro-batches, steps and ranks, and divided once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .types import Metrics

Means = Mapping[str, float]


@dataclass(frozen=True)
class Metric:
    """One logged name: what it is, as a formula. `derive` computes it from the other means (a variance, a ratio of means);
    `hold` repeats the last value when nothing was added since the last log (figures that exist once per rollout)."""

    name: str
    formula: str
    derive: Callable[[Means], float | None] | None = None
    hold: bool = False
    hidden: bool = False


class Meter:
    """Adds up (sum, count) pairs of a fixed list of metrics; `means()` reduces them over ranks in one fixed-shape call."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = {m.name: m for m in metrics}
        self.slots = [m.name for m in self.metrics.values() if m.derive is None]
        self.index = {name: i for i, name in enumerate(self.slots)}
        self.totals = torch.zeros(len(self.slots), 2, dtype=torch.float64)
        self.held: dict[str, float] = {}
        self.pending: list[tuple[int, Tensor, Tensor | float]] = []

    def add(self, metrics: Metrics) -> None:
        """Add one micro-batch's sums and counts (scalars or tensors). A name that was not declared raises KeyError."""
        for name, (total, count) in metrics.items():
            if name not in self.index:
                raise KeyError(
                    f"metric {name!r} is not declared; declare it in the trainer's `metrics`: {self.slots}"
                )
            self.pending.append((self.index[name], torch.as_tensor(total).detach(), count))

    def _settle(self) -> None:
        # Deferred until somebody looks, so that a GPU never waits for a metric inside a step.
        for i, total, count in self.pending:
            self.totals[i, 0] += float(total)
            self.totals[i, 1] += float(count)
        self.pending.clear()

    def means(self, reduce: Callable[[Tensor], Tensor] = lambda x: x) -> dict[str, float]:
        """{name: mean} since the last reset; names that nothing was added to are absent. `reduce` sums a tensor over ranks."""
        self._settle()
        totals = reduce(self.totals)
        means = {
            n: float(totals[i, 0] / totals[i, 1]) for n, i in self.index.items() if float(totals[i, 1]) > 0
        }
        self.held.update({n: v for n, v in means.items() if self.metrics[n].hold})
        means = {**self.held, **means}
        derived = {n: m.derive(means) for n, m in self.metrics.items() if m.derive}
        means.update({n: v for n, v in derived.items() if v is not None})
        return {n: means[n] for n, m in self.metrics.items() if n in means and not m.hidden}

    def reset(self) -> None:
        """Start a new window."""
        self.pending.clear()
        self.totals.zero_()

    def state_dict(self) -> dict[str, object]:
        """Everything a resumed run needs to log what the uninterrupted one would."""
        self._settle()
        return {"slots": self.slots, "totals": self.totals.tolist(), "held": dict(self.held)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """The inverse of `state_dict`. Raises ValueError when the declared metrics have changed."""
        if state["slots"] != self.slots:
            raise ValueError(f"the checkpoint's metrics {state['slots']} are not this trainer's {self.slots}")
        self.pending.clear()
        self.totals = torch.tensor(state["totals"], dtype=torch.float64).reshape(len(self.slots), 2)
        self.held = dict(state["held"])  # type: ignore[call-overload]


def variance(mean: str, square: str) -> Callable[[Means], float | None]:
    """A `derive` for Var[x] = E[x²] − E[x]², from the means of x and x²."""

    def derive(means: Means) -> float | None:
        if mean not in means or square not in means:
            return None
        return max(0.0, means[square] - means[mean] ** 2)

    return derive


def deviation(mean: str, square: str) -> Callable[[Means], float | None]:
    """A `derive` for the standard deviation, from the means of x and x²."""

    def derive(means: Means) -> float | None:
        found = variance(mean, square)(means)
        return None if found is None else found**0.5

    return derive


def explained_variance(
    error: str, error_square: str, target: str, target_square: str
) -> Callable[[Means], float | None]:
    """A `derive` for 1 − Var[error] / Var[target]; None where the target does not vary."""

    def derive(means: Means) -> float | None:
        wanted = variance(target, target_square)(means)
        left = variance(error, error_square)(means)
        return None if not wanted or left is None else 1.0 - left / wanted

    return derive
