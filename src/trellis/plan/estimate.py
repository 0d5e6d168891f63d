"""An estimate in words: each model's and each process's memory, the other ways to cut it, the largest micro-batch, the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .cost import in_words, product_rate, time_of
from .job import Job
from .machine import GIB, USED, Machine
from .memory import SHARDINGS, Memory, trained_numbers
from .switches import Saving, savings

OTHER_WORLD = 8
"""Processes that the table of shardings is made for where one was asked for."""
MIB = 1 << 20
ERROR = 0.2
"""What the arithmetic was off by, at most, where it was held against measurements (docs/estimate.md)."""


@dataclass(frozen=True)
class Estimate:
    """What is said of a job on devices with `room` bytes each, in `world` processes."""

    job: Job
    machine: Machine
    room: int
    world: int = 1
    sharding: str = "ddp"

    @property
    def memory(self) -> Memory:
        """On each process."""
        return self.job.memory(self.sharding, self.world)

    @property
    def fits(self) -> bool:
        """Whether the peak leaves some room on the device."""
        return self.memory.peak <= USED * self.room

    @property
    def unit(self) -> tuple[int, str]:
        """What sizes are said in."""
        return (GIB, "GiB") if self.memory.peak >= GIB else (MIB, "MiB")

    def savings(self) -> list[Saving]:
        """The switches that help, the best first."""
        peak: Callable[[Job], float] = lambda job: job.memory(self.sharding, self.world).peak  # noqa: E731
        return savings(self.job, peak, on_cpu=self.machine.device == "the CPU", alone=self.world == 1)

    def lines(self, with_time: bool = True) -> list[str]:
        """All of it."""
        out = [self._title(), "", *self._models(), "", *self._parts(), "", *self._shardings(), ""]
        out += [*self._micro(), "", *self._switches()]
        return [*out, "", *self._time()] if with_time else out

    def _title(self) -> str:
        how = "one process" if self.world == 1 else f"{self.world} processes, {self.sharding}"
        return f"trellis estimate: {self.job.method.upper()} on {how}; {self.room / GIB:.3g} GiB each ({self.machine.device})"

    def _models(self) -> list[str]:
        job = self.job
        own, critic = trained_numbers(job.policy, job.settled())
        out = ["models" + " " * 21 + "parameters        trained"]
        rows = [("policy", job.policy.parameters, own)]
        rows += [("value model", job.policy.parameters, critic)] if critic else []
        rows += [("value head", job.policy.hidden + 1, job.policy.hidden + 1)] if job.critic == "head" else []
        rows += [(name, shape.parameters, 0) for name, shape in job.frozen.items()]
        return out + [f"  {name:<20} {total:>14,} {trained:>14,}" for name, total, trained in rows]

    def _parts(self) -> list[str]:
        memory, item = self.memory, self.job.fullest()
        unit, name = self.unit
        out = [
            f"memory per process, {name} (micro-batches of {self.job.micro} rows, at most {item.tokens:,} tokens)"
        ]
        out += [f"  {part:<14} {value / unit:>9.1f}" for part, value in memory.parts.items() if value]
        verdict = "fits" if self.fits else f"does NOT fit into {USED:.0%} of {self.room / GIB:.3g} GiB"
        return [*out, f"  {'peak':<14} {memory.peak / unit:>9.1f}  ± {ERROR:.0%}; {verdict}"]

    def _shardings(self) -> list[str]:
        world = self.world if self.world > 1 else OTHER_WORLD
        cases = [("one process", "ddp", 1), *((f"{name}, {world}", name, world) for name in SHARDINGS)]
        unit, unit_name = self.unit
        out = [f"peak per process, {unit_name}; the largest micro-batch that fits, in rows"]
        for name, sharding, n in cases:
            peak = self.job.memory(sharding, n).peak / unit
            rows = self.job.most_rows(USED * self.room, sharding, n)
            out.append(f"  {name:<14} {peak:>9.1f} {rows or 'none':>8}")
        return out

    def _micro(self) -> list[str]:
        rows = self.job.most_rows(USED * self.room, self.sharding, self.world)
        if not rows:
            return ["largest micro-batch: not even one row fits; take a switch below"]
        return [f"largest micro-batch that fits: per_device_train_batch_size: {rows}"]

    def _switches(self) -> list[str]:
        found = self.savings()
        if not found:
            return ["no other setting would need less"]
        unit, name = self.unit
        out = [f"settings that need less, one at a time ({name} saved, the peak with it)"]
        return out + [
            f"  -{s.saved / unit:<9.1f} {s.peak / unit:>9.1f}  {s.write}  ({s.cost})" for s in found
        ]

    def _time(self) -> list[str]:
        device = "cpu" if self.machine.device == "the CPU" else "cuda"
        half = self.job.run.number < 4
        found = time_of(self.job, lambda rows: product_rate(rows, half), world=self.world, device=device)
        parts = [("sampling", found.sample), ("scoring", found.score), ("learning", found.learn)]
        spent = ", ".join(f"{name} {in_words(seconds)}" for name, seconds in parts if seconds)
        return [
            f"time, roughly (within a factor of 3): {in_words(found.total)} for {found.steps:,} optimizer steps, "
            f"{found.tokens / 1e6:,.2f} million tokens: {spent}"
        ]
