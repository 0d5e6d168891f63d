"""What a run left in its output directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..monitor import read_completions, read_health, read_history, read_record, read_samples

OWN = ("seed", "data_seed", "output_dir", "run_name", "logging_dir", "report_to")
"""Settings in which two runs of one experiment may differ."""


@dataclass
class Run:
    """One run: its folder, a name that no other run of the page has, its log, its record (run.json), what was sampled, and its
    health's history. What a run has not written is empty."""

    folder: Path
    name: str
    history: list[dict[str, Any]]
    record: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    health: list[dict[str, Any]] = field(default_factory=list)

    @property
    def config(self) -> dict[str, Any]:
        """The settings it was started with."""
        return self.record.get("config") or {}

    @property
    def trainer(self) -> str:
        """The name of its trainer's class; "" where there is no record."""
        return self.record.get("trainer") or ""

    @property
    def experiment(self) -> str:
        """Equal for runs that differ in nothing but their seed."""
        told = {name: value for name, value in self.config.items() if name not in OWN}
        known = [self.trainer, told, self.record.get("data")]
        return json.dumps(known, sort_keys=True) if self.record else str(self.folder)

    @property
    def steps(self) -> int:
        """The last step that was logged."""
        return max((int(record.get("step", 0)) for record in self.history), default=0)


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """The runs, in the order given. Raises ValueError for a folder that is no run's, or given twice."""
    paths = [Path(folder) for folder in folders]
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError(f"a run is given twice: {', '.join(map(str, paths))}")
    return [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def _read(path: Path, name: str) -> Run:
    history = read_history(path) if path.is_dir() else []
    if not history:
        raise ValueError(
            f"{path} holds no metrics.jsonl with anything in it; expected the output directory of a training run{_near(path)}"
        )
    record = read_record(path)
    return Run(path, name, history, record, _samples(path), read_health(path))


def _near(path: Path) -> str:
    found = sorted(str(near.parent) for near in path.glob("*/metrics.jsonl")) if path.is_dir() else []
    return f". Below it there are runs: {', '.join(found[:8])}" if found else ""


def _names(paths: Sequence[Path]) -> list[str]:
    """As few of the last parts of each path as tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _samples(folder: Path) -> list[dict[str, Any]]:
    """What was sampled: the completion tables, or the samples that every run keeps."""
    rows = read_completions(folder) or read_samples(folder)
    return [row for row in rows if isinstance(row.get("step"), int)]
