"""Two sides in turn, each run a fresh process, and what becomes of their numbers."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .cases import Case, floor_flops

ROOT = Path(__file__).resolve().parents[2]
Report = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """An interpreter, and the module that measures with it."""

    python: Path
    module: str

    def run(self, *arguments: Path, log: Path) -> None:
        """Raises RuntimeError with the end of the output where the module fails."""
        paths = os.pathsep.join(str(p) for p in (ROOT, ROOT / "src"))
        own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
        done = subprocess.run(
            [self.python, "-m", self.module, *arguments],
            env={**os.environ, **own, "PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false"},
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


def alternate(
    case: Case, pairs: int, ours: Side, theirs: Side, folder: Path, say: Callable[[str], Any] = print
) -> list[tuple[Report, Report]]:
    """(ours, theirs) `pairs` times, the side that goes first changing each time, on models that the peer's interpreter built."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = folder / "case.json"
    asked.write_text(json.dumps(asdict(case)))
    Side(theirs.python, "benchmarks.peers.build").run(asked, folder, log=folder / "build.log")
    found = []
    for number in range(pairs):
        reports: dict[str, Report] = {}
        sides = [("ours", ours), ("theirs", theirs)]
        for name, side in sides if number % 2 == 0 else sides[::-1]:
            result = folder / f"{name}-{number}.json"
            side.run(asked, folder, result, log=folder / f"{name}-{number}.log")
            reports[name] = json.loads(result.read_text())
        found.append((reports["ours"], reports["theirs"]))
        say(f"{case.name} pair {number + 1} of {pairs}: {time_ratio(case, *found[-1]):.2f}× less CPU time")
    return found


def time_ratio(case: Case, ours: Report, theirs: Report) -> float:
    """Their CPU seconds over ours; per useful token, where each side samples for itself."""
    ratio = theirs["seconds"] / ours["seconds"]
    return ratio * ours["tokens"] / theirs["tokens"] if case.draws else ratio


def spread(values: Sequence[float]) -> str:
    """min–median–max."""
    return f"{min(values):.2f}–{statistics.median(values):.2f}–{max(values):.2f}"


def losses_agree(case: Case, pairs: Sequence[tuple[Report, Report]], tolerance: float = 2e-3) -> bool | None:
    """Whether each step's loss is the same on both sides, as a share of its size; None where each side samples for itself.

    Raises ValueError where a side has logged no losses, or another number of them.
    """
    if case.draws:
        return None
    agreed = True
    for ours, theirs in pairs:
        if not ours["losses"] or len(ours["losses"]) != len(theirs["losses"]):
            raise ValueError(
                f"{case.name}: losses {ours['losses']} and {theirs['losses']} cannot be compared"
            )
        both = zip(ours["losses"], theirs["losses"], strict=True)
        agreed &= all(abs(a - b) <= tolerance * max(abs(b), 1e-3) for a, b in both)
    return agreed


COLUMNS = (
    *("case", "CPU s, ours", "CPU s, peer", "ahead by (min–median–max)"),
    *("MiB above resident, ours", "peer", "memory ratio", "useful tokens/s, ours", "peer"),
    *("share of the floor, ours", "peer", "losses"),
)
HEAD = "| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS)


def line(case: Case, pairs: Sequence[tuple[Report, Report]], facts: dict[str, float]) -> str:
    """One row of the table whose head is `HEAD`."""
    middle = statistics.median
    times, memory, speed, floors = [], [], [], []
    for side in zip(*pairs, strict=True):
        times.append(f"{middle(r['seconds'] for r in side):.2f}")
        memory.append(f"{middle(r['memory'] for r in side):.0f}")
        speed.append(f"{middle(r['tokens'] / r['seconds'] for r in side):.0f}")
        shares = [floor_flops(case, {**facts, **r}) / r["rate"] / r["seconds"] for r in side]
        floors.append(f"{100 * middle(shares):.0f} %")
    ahead = spread([time_ratio(case, *pair) for pair in pairs]) + "×"
    lighter = spread([theirs["memory"] / ours["memory"] for ours, theirs in pairs]) + "×"
    agreed = {True: "agree", False: "**differ**", None: "sampled"}[losses_agree(case, pairs)]
    cells = [case.name, *times, ahead, *memory, lighter, *speed, *floors, agreed]
    return "| " + " | ".join(cells) + " |"
