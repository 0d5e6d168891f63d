"""`python -m benchmarks peers [CASE…] --out DIR`: run pairs, write each down as it comes, go on where the last run stopped."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from .cases import CASES, Case
from .compare import ROOT, Bench, Side, time_ratio
from .environments import environment
from .page import page
from .results import Measured, add, read


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line. Raises SystemExit for cases that do not exist."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks peers", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"Of {', '.join(CASES)}; default: all.")
    parser.add_argument("--out", type=Path, default=ROOT / ".bench" / "results", help="Where results lie.")
    parser.add_argument(
        "--pairs", type=int, default=5, help="Alternating pairs of runs per case, earlier ones counted."
    )
    parser.add_argument("--minutes", type=float, help="Begin no pair after this many minutes.")
    parser.add_argument("--rows", type=int, help="Rows of a step, where the case's own take too long.")
    parser.add_argument("--epochs", type=int, help="Passes over a rollout, likewise.")
    parser.add_argument("--tiny", action="store_true", help="Tiny models: shows that it runs, not how fast.")
    parser.add_argument(
        "--profile", action="store_true", help="One more run of our side per case: where the time goes."
    )
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


@dataclass
class Limits:
    """How much to run: pairs per case, no pair begun after `end` (of time.monotonic), and whether a profile is wanted."""

    pairs: int
    end: float = float("inf")
    profile: bool = False

    def left(self, known: Measured | None) -> bool:
        """Whether there is something to do for a case of which this is known."""
        pairs, profile = (len(known.pairs), known.profile) if known else (0, None)
        return time.monotonic() < self.end and (pairs < self.pairs or (self.profile and profile is None))


def fill(bench: Bench, out: Path, limits: Limits) -> None:
    """Run what is missing of a case."""
    if not limits.left(read(out).get(bench.case)):
        return
    facts = bench.build()
    while limits.left(known := read(out).get(bench.case)):
        number = len(known.pairs) if known else 0
        if number == limits.pairs:
            add(out, bench.case, facts, profile=bench.report("ours", number, BENCH_PROFILE="1"))
            continue
        pair = bench.pair(number)
        add(out, bench.case, facts, pair=pair)
        ratio = time_ratio(bench.case, *pair)
        print(
            f"{bench.case.name} pair {number + 1} of {limits.pairs}: {ratio:.2f}× less CPU time",
            file=sys.stderr,
        )


def main(arguments: list[str] | None = None) -> None:
    """Run, then print the page. A case that fails is said, and the others go on; then the status is 1."""
    asked = parsed(arguments)
    given = {name: Path(path) for name, _, path in (pair.partition("=") for pair in asked.env)}
    end = time.monotonic() + 60 * asked.minutes if asked.minutes else float("inf")
    limits, failed = Limits(asked.pairs, end, asked.profile), []
    for name in asked.cases or CASES:
        case = shaped(CASES[name], asked)
        theirs = Side(environment(case.peer, asked.root, given), "benchmarks.peers.theirs")
        with tempfile.TemporaryDirectory() as folder:
            try:
                fill(
                    Bench(case, Side(Path(sys.executable), "benchmarks.peers.ours"), theirs, Path(folder)),
                    asked.out,
                    limits,
                )
            except RuntimeError as error:
                failed.append(name)
                print(f"{name}: {error}", file=sys.stderr)
    print(page(asked.out))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")
