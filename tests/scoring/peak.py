"""The most memory that a computation has at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile


def peak_bytes(compute: Callable[[], Any]) -> int:
    """Bytes that torch's CPU allocator holds at once for `compute`, at most, above what it held before: every allocation and
    release is counted, none is measured."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        compute()
    assert seen.profiler is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most
