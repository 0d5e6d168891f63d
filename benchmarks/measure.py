"""Alternating measurements of two ways to do the same thing, so that a busy machine slows both alike."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Work = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """The same result computed in two ways."""

    name: str
    plain: Work
    ours: Work


@dataclass(frozen=True)
class Row:
    """CPU seconds (medians), their ratio (median over pairs) and MiB above the start (largest of the process)."""

    name: str
    plain_seconds: float
    our_seconds: float
    ratio: float
    plain_memory: float
    our_memory: float


def cpu_seconds(work: Work) -> float:
    """CPU seconds of this process for one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _largest(field: str) -> float:
    """KiB of this process: "VmRSS" now, "VmHWM" at most since the last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return float(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def _report_memory(work: Work, answer: Any) -> None:
    # What the parent has dropped is let go of first: it would make room for the work unseen. And the largest size that getrusage
    # knows is the parent's too; one that was larger once would hide the growth.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    start = _largest("VmRSS")
    work()
    answer.send((_largest("VmHWM") - start) / 1024)


def peak_memory(work: Work) -> float:
    """MiB by which the memory of a fresh copy of this process grows at most during one call (on Linux). Raises EOFError where the
    call fails; its traceback is on stderr."""
    fork = multiprocessing.get_context("fork")
    heard, told = fork.Pipe(duplex=False)
    process = fork.Process(target=_report_memory, args=(work, told))
    process.start()
    told.close()
    try:
        return heard.recv()
    finally:
        process.join()


def memory_of(case: Case) -> tuple[float, float]:
    """The plain side's and our MiB. Ask before anything is timed: what a process has freed, it takes again unseen."""
    return peak_memory(case.plain), peak_memory(case.ours)


def compare(case: Case, repeats: int, memory: tuple[float, float] | None = None) -> Row:
    """Both sides of `case`, alternating, after one untimed call each."""
    memory = memory_of(case) if memory is None else memory
    case.plain(), case.ours()
    pairs = [(cpu_seconds(case.plain), cpu_seconds(case.ours)) for _ in range(repeats)]
    return Row(
        case.name,
        statistics.median(p for p, _ in pairs),
        statistics.median(o for _, o in pairs),
        statistics.median(o / p for p, o in pairs),
        *memory,
    )
