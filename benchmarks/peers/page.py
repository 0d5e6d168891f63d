"""`python -m benchmarks table DIR`: the page that the results make, from their file alone."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .cases import CASES, PEERS, Case, floor_flops
from .compare import Pair, Report, agree, spread, time_ratio
from .results import Measured, read

COLUMNS = (
    *("case", "pairs", "CPU s, ours", "peer", "ahead by", "aim", "MiB, ours", "peer", "memory ratio", "aim"),
    *("useful tokens/s, ours", "peer", "of the floor, ours", "peer", "losses", "command"),
)
PHASES = ("sampling", "rewards", "scoring", "training", "optimizer", "data")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _both(pairs: Sequence[Pair], value: Callable[[Report], float], form: str) -> list[str]:
    """The medians of a number of each side's reports."""
    return [format(statistics.median(map(value, side)), form) for side in zip(*pairs, strict=True)]


def _floor(case: Case, facts: dict[str, float], report: Report) -> float:
    counted = {name: report[name] for name in ("tokens", "trained", "texts")}
    return floor_flops(case, {**facts, **counted}) / report["rate"] / report["seconds"]


def row(measured: Measured) -> list[str]:
    """One row of the table whose head is `COLUMNS`."""
    case, pairs = measured.case, measured.pairs
    aims = [f"{aim:g}×" for aim in case.aims or ()] or ["–", "–"]
    known = agree(case, pairs)
    return [
        case.name,
        str(len(pairs)),
        *_both(pairs, lambda r: r["seconds"], ".2f"),
        spread([time_ratio(case, *pair) for pair in pairs]) + "×",
        aims[0],
        *_both(pairs, lambda r: r["memory"], ",.0f"),
        spread([theirs["memory"] / ours["memory"] for ours, theirs in pairs]) + "×",
        aims[1],
        *_both(pairs, lambda r: r["tokens"] / r["seconds"], ",.0f"),
        *_both(pairs, lambda r: _floor(case, measured.facts, r), ".0%"),
        {True: "agree", False: "**differ**", None: "sampled"}[known],
        f"`peers {case.name}`",
    ]


def work(case: Case) -> str:
    """What one step of the case is, in one line."""
    low, median, high = case.prompt
    per_row = "pairs" if len(case.answers) == 2 else "rows"
    kind = "completions" if case.groups else "prompts" if case.draws else per_row
    parts = [
        f"{case.rows} {kind}" + (f" ({case.samples} of each prompt)" if case.groups else ""),
        f"joined to rows of {case.packed}" if case.packed else f"{case.micro_rows} per forward pass",
        *([f"{case.epochs} epochs"] if case.epochs > 1 else []),
        f"prompts of {low}–{high} tokens (median {median}, some longer), responses to {case.response}",
        *(["LoRA of rank 16 on all matrices"] if case.lora else []),
        f"median of {case.steps} after {case.warm}" if case.warm else f"{case.steps} step",
        *([case.note] if case.note else []),
    ]
    return f"- **{case.name}** ({', '.join(PEERS[case.peer][:2])}; {case.shape}): {'; '.join(parts)}."


def profile(found: Sequence[Measured]) -> str:
    """Shares of the CPU time of our steps by phase."""
    rows = []
    for measured in found:
        logged = (measured.profile or {}).get("profile", {})
        seconds = {phase: logged.get(phase, 0.0) for phase in PHASES}
        total = sum(seconds.values())
        if total:
            rows.append([measured.case.name, *(f"{seconds[phase] / total:.0%}" for phase in PHASES)])
    return table(("case", *PHASES), rows) if rows else ""


def where(found: Sequence[Measured]) -> str:
    """Machine, versions, dates and the rate of matrix products."""
    places = [place for measured in found for place in measured.places]

    def said(name: str) -> str:
        return ", ".join(sorted({str(place[name]) for place in places}))

    def versions(side: int) -> str:
        pairs = [measured.pairs[0][side]["versions"] for measured in found]
        return "; ".join(sorted({", ".join(f"{n} {v}" for n, v in known.items()) for known in pairs}))

    rates = [r["rate"] / 1e9 for measured in found for pair in measured.pairs for r in pair]
    loads = [place["load"] for place in places]
    lowest, middle, highest = min(rates), statistics.median(rates), max(rates)
    return (
        f"{said('date')}; {said('processor')}, {said('cores')} cores, load {min(loads)}–{max(loads)}; every process on one "
        f"thread; float32; matrix products at {lowest:.0f}–{middle:.0f}–{highest:.0f} GFLOP per CPU second; commit "
        f"{said('commit')}. Ours: {versions(0)}. Peers: {versions(1)}."
    )


def page(out: Path) -> str:
    """All of it in Markdown; cases in their own order."""
    order = list(CASES)
    found = list(read(out).values())
    if not found:
        raise ValueError(
            f"found no results in {out}/results.jsonl; write python -m benchmarks peers --out {out}"
        )
    found.sort(key=lambda m: order.index(m.case.name) if m.case.name in order else len(order))
    paired = [measured for measured in found if measured.pairs]
    parts = [
        *([where(paired), table(COLUMNS, map(row, paired))] if paired else []),
        "\n".join(work(m.case) for m in found),
        profile(found),
    ]
    return "\n\n".join(part for part in parts if part)


def main(arguments: list[str] | None = None) -> None:
    """Print the page of a folder of results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks table", description=__doc__)
    parser.add_argument("out", type=Path, metavar="DIR", help="What --out of the runs was.")
    print(page(parser.parse_args(arguments).out))
