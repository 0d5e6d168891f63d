"""How long a run takes, roughly: its multiplications, over the rate of a short product that is timed on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from .job import Job

SHARE = 0.5
"""Of the rate of one large product, what a whole training step reaches; rough."""
SECONDS = 0.05
"""For one measurement."""
WIDTH = 1024
MOST_ROWS = 2048
STEP_SECONDS = {"cpu": 0.003, "cuda": 0.0004}
"""For a layer's calls, forward, whatever its size, by device type; rough."""


@dataclass(frozen=True)
class Time:
    """Seconds of a run, by what they are spent on; steps: optimizer steps; tokens: that are trained on."""

    sample: float
    score: float
    learn: float
    steps: int
    tokens: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.sample + self.score + self.learn


def product_rate(rows: int, half: bool = False) -> float:
    """Multiplications and additions per second of [rows, 1024] · [1024, 4096] on the device that trains."""
    import torch

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    like = {"device": device or "cpu", "dtype": torch.bfloat16 if half else torch.float32}
    a, b = torch.ones(rows, WIDTH, **like), torch.ones(WIDTH, 4 * WIDTH, **like)

    def seconds(size: int) -> float:
        start = time.perf_counter()
        (a[:size] @ b)[0, 0].item()
        return time.perf_counter() - start

    size = rows_to_time(rows, seconds)
    count, spent = 0, 0.0
    while spent < SECONDS:
        spent += seconds(size)
        count += 1
    return 2.0 * size * WIDTH * 4 * WIDTH * count / spent


def rows_to_time(rows: int, seconds: Callable[[int], float]) -> int:
    """`rows`, or fewer where a product of so many takes longer than a measurement: many CPUs are a hundred times slower in
    bfloat16."""
    size = min(rows, 8)
    while True:
        seconds(size)  # the first of a shape is slower
        if size == rows or seconds(size) > SECONDS:
            return size
        size = min(rows, 8 * size)


def time_of(job: Job, rate: Callable[[int], float], *, world: int = 1, device: str = "cpu") -> Time:
    """The seconds of a run on `world` devices, of which one multiplies `rate(rows)` numbers per second in products of so many
    rows. Order of magnitude: a run with short rows or small matrices is slower, one whose completions end early is faster."""
    models = 2 if job.critic == "model" else 1
    rows, mean = job.trained_rows(world), job.mean
    back = (2 if job.adapter else 4) + (2 if job.run.recompute else 0)
    tokens = rows * mean.tokens
    learn = tokens * models * job.policy.matrices * (2 + back) / _rate(job.fullest().tokens, rate)
    layers = job.policy.layers * STEP_SECONDS.get(device, STEP_SECONDS["cuda"])
    learn += layers * 3 * models * rows / job.micro
    fresh = rows / job.passes if job.online else rows
    seen = [shape.matrices for shape in job.frozen.values()]
    if job.online and (job.method == "ppo" or job.passes * job.minibatches > 1):
        seen += [job.policy.matrices] * models  # the old log-probabilities, and values
    score = fresh * mean.tokens * 2 * sum(seen) / _rate(MOST_ROWS, rate)
    sample = 0.0
    if job.online and not job.remote:
        at_once = max(1, min(job.forward_rows or job.rollout_rows, job.rollout_rows))
        new = fresh * job.answer
        sample = new * 2 * job.policy.matrices / _rate(at_once, rate) + new / at_once * layers
    return Time(sample / world, score / world, learn / world, job.steps(world), tokens)


def _rate(rows: int, rate: Callable[[int], float]) -> float:
    return rate(max(1, min(MOST_ROWS, rows))) * SHARE


def in_words(seconds: float) -> str:
    """A duration with the precision that an estimate has."""
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{max(1, seconds):.0f} s"
