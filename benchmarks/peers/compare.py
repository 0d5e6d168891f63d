"""Two sides in turn, each run a fresh process, and what becomes of their numbers."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .cases import Case

ROOT = Path(__file__).resolve().parents[2]
Report = dict[str, Any]
Pair = tuple[Report, Report]


@dataclass(frozen=True)
class Side:
    """An interpreter, and the module that measures with it."""

    python: Path
    module: str

    def run(self, *arguments: Path, log: Path, **environment: str) -> None:
        """Raises RuntimeError with the end of the output where the module fails."""
        paths = os.pathsep.join(str(p) for p in (ROOT, ROOT / "src"))
        own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
        done = subprocess.run(
            [self.python, "-m", self.module, *arguments],
            env={**os.environ, **own, "PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false", **environment},
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        log.write_text(done.stdout)
        if done.returncode:
            raise RuntimeError(
                f"{self.module} ended with {done.returncode}; its last lines (all of them in {log}):\n"
                + "\n".join(done.stdout.splitlines()[-15:])
            )


@dataclass(frozen=True)
class Bench:
    """A case with its models on disk in `folder`, and both sides."""

    case: Case
    ours: Side
    theirs: Side
    folder: Path

    def build(self) -> dict[str, float]:
        """Make models and rows with the peer's interpreter, and say the model's facts (see `cases.floor_flops`)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "case.json").write_text(json.dumps(asdict(self.case)))
        builder = Side(self.theirs.python, "benchmarks.peers.build")
        builder.run(self.folder / "case.json", self.folder, log=self.folder / "build.log")
        return json.loads((self.folder / "full" / "facts.json").read_text())

    def report(self, name: str, number: int, **environment: str) -> Report:
        """What one run of a side ("ours" or "theirs") saw."""
        result = self.folder / f"{name}-{number}.json"
        side: Side = getattr(self, name)
        log = result.with_suffix(".log")
        side.run(self.folder / "case.json", self.folder, result, log=log, **environment)
        return json.loads(result.read_text())

    def pair(self, number: int) -> Pair:
        """(ours, theirs); which side goes first changes with the number."""
        names = ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours")
        reports = {name: self.report(name, number) for name in names}
        return reports["ours"], reports["theirs"]


def time_ratio(case: Case, ours: Report, theirs: Report) -> float:
    """Their CPU seconds over ours; per useful token, where each side samples for itself."""
    ratio = theirs["seconds"] / ours["seconds"]
    return ratio * ours["tokens"] / theirs["tokens"] if case.draws else ratio


def spread(values: Sequence[float]) -> str:
    """min–**median**–max; of a single value only itself."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{min(values):.2f}–**{statistics.median(values):.2f}**–{max(values):.2f}"


TOLERANCE = {"losses": 2e-3, "norms": 1e-2}
"""By how much, as a share, both sides' numbers of a step may differ."""


def agree(case: Case, pairs: Sequence[Pair]) -> bool | None:
    """Whether each step's loss and gradient norm are the same on both sides; None where each side samples for itself.

    Raises ValueError where a side has logged no losses, or another number of them.
    """
    if case.draws:
        return None
    return all(_close(case, name, *pair) for name in TOLERANCE for pair in pairs)


def _close(case: Case, name: str, ours: Report, theirs: Report) -> bool:
    if not ours[name] or len(ours[name]) != len(theirs[name]):
        raise ValueError(f"{case.name}: {name} {ours[name]} and {theirs[name]} cannot be compared")
    both = zip(ours[name], theirs[name], strict=True)
    return all(abs(a - b) <= TOLERANCE[name] * max(abs(b), 1e-3) for a, b in both)
