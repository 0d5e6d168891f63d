"""What each run was and what it cost, as a table with a column per run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .reading import Run

SPEEDS = {
    "train_samples_per_second": "{:,.1f} rows/s",
    "train_steps_per_second": "{:,.2f} steps/s",
    "profile/tokens_per_second": "{:,.0f} tokens/s",
    "eps": "{:,.1f} episodes/s",
}


def facts(runs: Sequence[Run], estimates: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
    """(name, one text per run), without the rows that no run has anything in; estimates stand below what was measured."""
    table = [(name, [tell(run) for run in runs]) for name, tell in TOLD.items()]
    table.insert(list(TOLD).index("memory") + 1, ("estimated", list(estimates)))
    return [(name, cells) for name, cells in table if any(cells)]


def _command(run: Run) -> str:
    command = run.record.get("command") or {}
    words = command.get("words") or run.record.get("script") or []
    return " ".join((["trellis"] if command else []) + [str(word) for word in words])


def _seed(run: Run) -> str:
    seeds = {name: run.config.get(name) for name in ("seed", "data_seed") if run.config.get(name) is not None}
    return ", ".join(f"{name} {value}" for name, value in seeds.items())


def _end(run: Run) -> str:
    result = run.record.get("result")
    if result:
        return f"finished at step {result['steps']}"
    return f"not finished; last logged step {run.steps}" if run.record else f"last logged step {run.steps}"


def _resumed(run: Run) -> str:
    return ", ".join(f"step {step}" for step in run.record.get("resumed_at") or [])


def _data(run: Run) -> str:
    data = run.record.get("data") or {}
    if not data:
        return ""
    return (
        "a stream"
        if data.get("rows") is None
        else f"{data['rows']:,} rows, SHA-256 {str(data.get('sha256'))[:12]}"
    )


def _reports(run: Run) -> str:
    return "\n".join(run.record.get("data_reports") or [])


def _pairs(name: str) -> Callable[[Run], str]:
    def tell(run: Run) -> str:
        return ", ".join(f"{key} {value}" for key, value in (run.record.get(name) or {}).items())

    return tell


def _speed(run: Run) -> str:
    last: dict[str, Any] = {}
    for record in run.history:
        last.update({name: value for name, value in record.items() if name in SPEEDS})
    return ", ".join(
        SPEEDS[name].format(last[name]) for name in SPEEDS if isinstance(last.get(name), int | float)
    )


def _time(run: Run) -> str:
    cost = run.record.get("cost") or {}
    seconds = cost.get("seconds") or next(
        (record["train_runtime"] for record in reversed(run.history) if "train_runtime" in record), None
    )
    return f"{seconds:,.0f} s" if isinstance(seconds, int | float) else ""


def _memory(run: Run) -> str:
    peak = (run.record.get("cost") or {}).get("peak_memory_mib")
    peak = peak or max((record.get("profile/peak_memory_mib", 0) for record in run.history), default=0)
    on_cpu = str((run.record.get("machine") or {}).get("device", "")).startswith("cpu")
    return f"{peak:,.0f} MiB at most{', the whole process' if on_cpu else ''}" if peak else ""


def _health(run: Run) -> str:
    found = len(run.health)
    return f"{found} entr{'y' if found == 1 else 'ies'}, below" if found else ""


TOLD: dict[str, Callable[[Run], str]] = {
    "trainer": lambda run: run.trainer,
    "command": _command,
    "seed": _seed,
    "end": _end,
    "resumed at": _resumed,
    "data": _data,
    "data report": _reports,
    "time": _time,
    "speed": _speed,
    "memory": _memory,
    "health": _health,
    "machine": _pairs("machine"),
    "versions": _pairs("versions"),
    "weights": lambda run: str((run.record.get("result") or {}).get("weights", ""))[:12],
}
