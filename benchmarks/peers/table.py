"""`python -m benchmarks peers`: the arguments, the order of work, and the page that comes of it."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from .cases import CASES, Case
from .compare import HEAD, ROOT, Report, Side, alternate, line
from .environments import environment


def processor() -> str:
    """The processor's name."""
    names = [row for row in Path("/proc/cpuinfo").read_text().splitlines() if row.startswith("model name")]
    return names[0].split(":")[1].strip() if names else platform.machine()


def work(case: Case) -> str:
    """What one step of the case is, in one line."""
    low, median, high = case.prompt
    kind = (
        "completions"
        if case.groups
        else "prompts"
        if case.draws
        else "rows"
        if case.method == "sft"
        else "pairs"
    )
    rows = f"{case.rows} {kind}" + (f", {case.samples} of each prompt" if case.groups else "")
    return (
        f"{case.name}: {case.shape}, {rows} ({case.micro_rows} per forward pass), {case.epochs} epoch(s), "
        f"prompts of {low}–{high} tokens (median {median}, some longer), responses to {case.response}; "
        f"median of {case.steps} step(s) after {case.warm}"
    )


def versions(report: Report) -> str:
    return ", ".join(f"{name} {version}" for name, version in report["versions"].items())


def compared(case: Case, pairs: int, given: dict[str, Path], root: Path) -> tuple[str, list[str]]:
    """(the case's line of the table, what was run on what)."""
    theirs = Side(environment(case.peer, root, given), "benchmarks.peers.theirs")
    ours = Side(Path(sys.executable), "benchmarks.peers.ours")
    with tempfile.TemporaryDirectory() as folder:
        found = alternate(case, pairs, ours, theirs, Path(folder), lambda said: print(said, file=sys.stderr))
        facts = json.loads((Path(folder) / "full" / "facts.json").read_text())
    row = line(case, found, facts)
    rate = sorted(r["rate"] for pair in found for r in pair)[len(found)] / 1e9
    about = [work(case), f"  ours: {versions(found[0][0])}", f"  peer: {versions(found[0][1])}"]
    return row, [*about, f"  matrix products at {rate:.0f} GFLOP per CPU second; {len(found)} pairs"]


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line. Raises SystemExit for cases that do not exist."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks peers", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"Of {', '.join(CASES)}; default: all.")
    parser.add_argument("--pairs", type=int, default=5, help="Alternating pairs of runs per case.")
    parser.add_argument("--rows", type=int, help="Rows of a step, where the case's own take too long.")
    parser.add_argument("--epochs", type=int, help="Passes over a rollout, likewise.")
    parser.add_argument("--tiny", action="store_true", help="Tiny models: shows that it runs, not how fast.")
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="An environment that is already there.",
    )
    parser.add_argument("--root", type=Path, default=ROOT / ".bench", help="Where environments are made.")
    asked = parser.parse_args(arguments)
    unknown = sorted(set(asked.cases) - set(CASES))
    if unknown:
        parser.error(f"no case is called {', '.join(unknown)}; there are {', '.join(CASES)}")
    return asked


def shaped(case: Case, asked: argparse.Namespace) -> Case:
    """The case in the size asked for."""
    if asked.tiny:
        return case.tiny()
    if asked.rows:
        case = replace(case, rows=asked.rows, micro_rows=min(case.micro_rows, asked.rows))
    return replace(case, epochs=asked.epochs) if asked.epochs and case.draws else case


def main(arguments: list[str] | None = None) -> None:
    """Print a table in Markdown, each row as soon as it is known, and under it what was run on what."""
    asked = parsed(arguments)
    given = {name: Path(path) for name, _, path in (pair.partition("=") for pair in asked.env)}
    print(f"{datetime.date.today()}, {processor()}, one thread\n\n{HEAD}", flush=True)
    notes = []
    for name in asked.cases or CASES:
        case = shaped(CASES[name], asked)
        row, about = compared(case, asked.pairs, given, asked.root)
        print(row, flush=True)
        notes += about
    print("\n" + "\n".join(notes))
