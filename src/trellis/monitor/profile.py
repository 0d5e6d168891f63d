"""Where a run's time goes, and how much of what it computes was needed: `profile=True`, with any trainer."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..rollout import RolloutStats
from ..scoring import Work, counting
from .samples import show

Totals = dict[str, float]
NAMES = {"reading data": "data", "asking the rewards": "rewards", "taking the step": "optimizer"}
"""Phases that are called otherwise in a log."""
ASIDE = ("starting", "evaluating", "saving")
"""Phases that are no part of training, where its speed is told."""
TRUNK = {
    "needed": "useful_tokens",
    "padding": "pad_tokens",
    "a prompt that its group had in the same pass": "repeated_tokens",
    "a prompt whose group was cut": "cut_tokens",
}


class Profile:
    """What a training run did since it began, per phase and per optimizer step, on this process.

    The watchdog's phases cut the time. `work`: what was scored; `sampling`: what was sampled; evaluation is in neither. On an
    accelerator each change of phase waits for it, so that its work counts where it was asked for.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self._reset()

    def _reset(self) -> None:
        self.work, self.sampling, self.steps = Work(), RolloutStats(), 0
        self.wall: Counter[str] = Counter()
        self.cpu: Counter[str] = Counter()
        self.phase, self._at = "starting", (time.perf_counter(), time.process_time())
        self._sampled = self._stats()
        self._logged: Totals = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside, the run is measured (where `profile` is set); at its end the table is shown."""
        trainer = self.trainer
        if not trainer.args.profile:
            yield
            return
        if trainer.args.device.type == "cuda":
            torch.accelerator.reset_peak_memory_stats(trainer.args.device)
        self._reset()
        trainer.watchdog.heard = self.turn
        try:
            with counting(self.work):
                yield
        finally:
            trainer.watchdog.heard = None
            self.turn("over")
        if trainer.is_world_process_zero():
            show(self.rows(), title=self.title())

    def _stats(self) -> RolloutStats:
        engine = getattr(getattr(self.trainer, "collector", None), "engine", None)
        return dataclasses.replace(getattr(engine, "stats", RolloutStats()))

    def turn(self, phase: str) -> None:
        """The run goes on to `phase`: what was since the last turn belongs to the phase before."""
        if self.trainer.args.device.type != "cpu":
            torch.accelerator.synchronize()
        now, stats, name = (time.perf_counter(), time.process_time()), self._stats(), self.phase
        self.wall[name] += now[0] - self._at[0]  # type: ignore[assignment]
        self.cpu[name] += now[1] - self._at[1]  # type: ignore[assignment]
        if name != "evaluating":
            for key, value in vars(stats).items():
                setattr(self.sampling, key, getattr(self.sampling, key) + value - getattr(self._sampled, key))
        self._at, self._sampled = now, stats
        main = phase.partition(":")[0]
        self.phase = NAMES.get(main, main)
        self.steps += (name, self.phase) == ("training", "optimizer")
        self.work.paused = self.phase == "evaluating"
        if self.phase == "data":
            self.work.step.clear()

    def totals(self) -> Totals:
        """All that was added up, by name."""
        work = {name: count for name, count in vars(self.work).items() if type(count) is int}
        sampling = {f"sampling/{name}": value for name, value in vars(self.sampling).items()}
        wall = {f"time/{name}": seconds for name, seconds in self.wall.items()}
        cpu = {f"cpu/{name}": seconds for name, seconds in self.cpu.items()}
        return {"steps": self.steps, **work, **sampling, **wall, **cpu}

    def logged(self) -> dict[str, float]:
        """What goes into the log since the last time: counts and CPU seconds per optimizer step, shares of the time."""
        if not self.trainer.args.profile:
            return {}
        self.turn(self.phase)
        totals = self.totals()
        new = {name: value - self._logged.get(name, 0) for name, value in totals.items()}
        self._logged = totals
        steps, seconds = max(1, new.pop("steps")), _seconds(new)
        found = {
            name: value / (seconds if name.startswith("time/") else steps) for name, value in new.items()
        }
        found["seconds"] = seconds / steps
        found["tokens_per_second"] = new["useful_tokens"] / _seconds(new, without=ASIDE)
        found["peak_memory_mib"] = peak_mib(self.trainer.args.device)
        return {f"profile/{name}": value for name, value in found.items()}

    def title(self) -> str:
        """The run in one line."""
        totals = self.totals()
        speed = totals["useful_tokens"] / _seconds(totals, without=ASIDE)
        peak = peak_mib(self.trainer.args.device)
        return (
            f"profile of {self.steps} optimizer steps in {_seconds(totals):.1f} s: {speed:,.0f} needed tokens/s in training, "
            f"peak memory {peak:,.0f} MiB"
        )

    def rows(self) -> list[dict[str, str]]:
        """The table: what was computed and what of it was needed, then the phases by their time."""
        work, sampling = self.work, self.sampling
        rows = self._counted(
            "tokens scored or trained",
            work.trunk_tokens,
            {f"of these {what}": getattr(work, name) for what, name in TRUNK.items()},
        )
        rows += self._counted(
            "states projected to the vocabulary", work.head_rows, {"of these for nothing": work.wasted_rows}
        )
        if sampling.prefill_tokens:
            read = sampling.prefill_tokens + sampling.pad_tokens
            again = {
                "padding": sampling.pad_tokens,
                "again": sampling.prefill_tokens - sampling.useful_prefill,
            }
            over = {"of these of finished rows": sampling.row_steps - sampling.useful_steps}
            rows += self._counted(
                "prompt tokens read to sample", read, {f"of these {k}": v for k, v in again.items()}
            )
            rows += self._counted("rows decoded by a token", sampling.row_steps, over)
        seconds = sum(self.wall.values())
        return rows + [
            {
                "what": f"time: {name}",
                "per step": f"{wall / max(1, self.steps):.3f} s",
                "share": f"{wall / seconds:.1%}",
                "CPU": f"{self.cpu[name] / max(1, self.steps):.3f} s",
            }
            for name, wall in self.wall.most_common()
        ]

    def _counted(self, what: str, total: int, parts: dict[str, int]) -> list[dict[str, str]]:
        steps, whole = max(1, self.steps), max(1, total)
        return [
            {"what": name, "per step": f"{count / steps:,.1f}", "share": f"{count / whole:.1%}"}
            for name, count in {what: total, **parts}.items()
        ]


def _seconds(totals: Totals, without: tuple[str, ...] = ()) -> float:
    phases = {name[5:]: value for name, value in totals.items() if name.startswith("time/")}
    return max(1e-9, sum(value for name, value in phases.items() if name not in without))


def peak_mib(device: torch.device) -> float:
    """The most memory in use so far: the allocator's on a CUDA device, else what of this process was resident; NaN where the
    system does not say."""
    if device.type == "cuda":
        return torch.accelerator.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
