"""The study's table, from what the seeds left on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from trellis.judges.votes import WinRate, length_controlled_win_rate, win_rate

from .chain import DONE, LOOK
from .measure import COOLER, read_rows

POLICIES = {
    "base": "base (has read abstracts)",
    "sft": "SFT",
    "cooler": f"SFT, sampled at temperature {COOLER}",
    "ppo": "PPO",
    "rloo": "RLOO",
    "grpo": "GRPO",
    "dpo": "DPO",
    "reference": "the authors",
}
Rows = list[list[dict[str, Any]]]


def votes(ours: Rows, theirs: Rows) -> list[float]:
    """1 where the seed's judge gives ours the higher score, ½ where both are equal, else 0; seed by seed, paper by paper."""
    pairs = [
        (a["judge"], b["judge"])
        for one, two in zip(ours, theirs, strict=True)
        for a, b in zip(one, two, strict=True)
    ]
    return [0.5 if a == b else float(a > b) for a, b in pairs]


def _flat(rows: Rows, name: str) -> list[Any]:
    return [row[name] for seed in rows for row in seed]


def wins(ours: Rows, theirs: Rows) -> dict[str, Any]:
    """How often ours win: of all seeds together, with the interval over papers; at equal lengths; and of each seed."""
    papers = [i for seed in ours for i in range(len(seed))]
    found = votes(ours, theirs)
    fair = length_controlled_win_rate(found, _flat(ours, "words"), _flat(theirs, "words"), groups=papers)
    each = [win_rate(votes([a], [b])).rate for a, b in zip(ours, theirs, strict=True)]
    return {"all": _interval(win_rate(found, groups=papers)), "fair": _interval(fair), "seeds": each}


def _interval(found: WinRate) -> list[float]:
    return [found.rate, found.low, found.high]


def collect(homes: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """{policy: its win rates and means over the seeds}."""
    rows = {name: [read_rows(home / LOOK / name) for home in homes] for name in POLICIES}
    found: dict[str, dict[str, Any]] = {}
    for name in POLICIES:
        means = [json.loads((home / LOOK / name / DONE).read_text()) for home in homes]
        shared = [key for key in means[0] if key != "cpu_seconds"]
        found[name] = {key: [seed[key] for seed in means] for key in shared}
        for other in ("reference", "sft"):
            if other != name:
                found[name][f"against {other}"] = wins(rows[name], rows[other])
    return found


def _percent(numbers: Sequence[float]) -> str:
    rate, low, high = numbers
    return f"{rate:.1%} ({low:.1%}–{high:.1%})"


def _mean(digits: int) -> Callable[[Sequence[float]], str]:
    def text(numbers: Sequence[float]) -> str:
        mean = f"{fmean(numbers):.{digits}f}"
        return mean if len(numbers) == 1 else f"{mean} ({min(numbers):.{digits}f}…{max(numbers):.{digits}f})"

    return text


def _against(other: str, kind: str) -> Callable[[dict[str, Any]], str]:
    def text(row: dict[str, Any]) -> str:
        found = row.get(f"against {other}")
        return "–" if found is None else _percent(found[kind])

    return text


def _seeds(other: str) -> Callable[[dict[str, Any]], str]:
    def text(row: dict[str, Any]) -> str:
        found = row.get(f"against {other}")
        return "–" if found is None else ", ".join(f"{rate:.1%}" for rate in found["seeds"])

    return text


def _number(name: str, digits: int) -> Callable[[dict[str, Any]], str]:
    return lambda row: _mean(digits)(row[name]) if name in row else "–"


VERDICTS = {
    "wins against the authors": _against("reference", "all"),
    "of each seed": _seeds("reference"),
    "wins against SFT": _against("sft", "all"),
    "of each seed ": _seeds("sft"),
    "against SFT at equal length": _against("sft", "fair"),
}
NUMBERS = {
    "reward model": _number("reward", 2),
    "KL to SFT": _number("kl", 1),
    "tokens": _number("tokens", 1),
    "ends": _number("ended", 2),
    "distinct word pairs": _number("distinct", 2),
    "ROUGE-L": _number("overlap", 3),
    "with another paper": _number("foreign", 3),
}


def markdown(found: dict[str, dict[str, Any]], columns: dict[str, Callable[[dict[str, Any]], str]]) -> str:
    """A table of Markdown with a row per policy."""
    head = ["", *columns]
    lines = [head, ["---"] * len(head)]
    lines += [[title, *(text(found[name]) for text in columns.values())] for name, title in POLICIES.items()]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def stages_table(homes: Sequence[Path]) -> str:
    """What the models are worth by themselves: held-out losses, and accuracy on held-out pairs by kind."""
    lines = ["| | " + " | ".join(home.name for home in homes) + " |", "| --- |" + " --- |" * len(homes)]
    done = [
        {n: json.loads((home / n / DONE).read_text()) for n in ("base", "sft", "reward", "judge")}
        for home in homes
    ]
    for name in ("base", "sft"):
        cells = [f"{seed[name]['held_out_loss']:.3f}" for seed in done]
        lines.append(f"| {name}: held-out loss, nats per token | " + " | ".join(cells) + " |")
    for name in ("reward", "judge"):
        for kind in done[0][name]["accuracy"]:
            cells = [f"{seed[name]['accuracy'][kind]:.1%}" for seed in done]
            lines.append(f"| {name}: right on held-out pairs, {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_tables(out: Path, homes: Sequence[Path]) -> str:
    """Leaves table.json and table.md in `out`; returns the latter."""
    found = collect(homes)
    text = "\n".join((markdown(found, VERDICTS), markdown(found, NUMBERS), stages_table(homes)))
    (out / "table.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "table.md").write_text(text)
    return text
