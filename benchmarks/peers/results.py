"""What was measured, in a file of lines that a later run goes on with: `results.jsonl` in the folder of `--out`.

A line holds a case, what was measured of it (a pair, or a profile of our side), and where and when.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .cases import Case, from_json
from .compare import ROOT, Pair, Report


def processor() -> str:
    """The processor's name."""
    names = [row for row in Path("/proc/cpuinfo").read_text().splitlines() if row.startswith("model name")]
    return names[0].split(":")[1].strip() if names else platform.machine()


def commit() -> str:
    """The commit that is checked out, with + where files differ from it; empty outside of a checkout."""
    told = [
        subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno", "src"])
    ]
    return told[0].stdout.strip() + "+" * bool(told[1].stdout)


def place() -> dict[str, Any]:
    """When, where and of what a measurement is."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "commit": commit(),
    }


@dataclass
class Measured:
    """All that is known of a case."""

    case: Case
    facts: dict[str, float]
    pairs: list[Pair] = field(default_factory=list)
    places: list[dict[str, Any]] = field(default_factory=list)
    profile: Report | None = None


def add(out: Path, case: Case, facts: dict[str, float], **found: Any) -> None:
    """Append a line: `pair=(ours, theirs)` or `profile=report`."""
    out.mkdir(parents=True, exist_ok=True)
    line = {"case": asdict(case), "facts": facts, **found, "place": place()}
    with (out / "results.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def read(out: Path) -> dict[Case, Measured]:
    """Everything in the folder, by case, in the order of its first line. Cases that were changed since are cases of their own."""
    path, found = out / "results.jsonl", dict[Case, Measured]()
    for text in path.read_text().splitlines() if path.exists() else ():
        line = json.loads(text)
        case = from_json(line["case"])
        measured = found.setdefault(case, Measured(case, line["facts"]))
        measured.places.append(line["place"])
        if "pair" in line:
            measured.pairs.append((line["pair"][0], line["pair"][1]))
        else:
            measured.profile = line["profile"]
    return found
