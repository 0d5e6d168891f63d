"""A check on the terminal: in colour where there is colour, in plain lines elsewhere."""

from __future__ import annotations

from typing import Any

from .check import Check
from .lengths import histogram
from .words import facts, labelled, runs, says, summary, where

STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
TOKENS = {
    "prompt": ("dim", "dim reverse"),
    "trained": ("green", "black on green"),
    "left out": ("magenta", "black on magenta"),
}
LONGEST = 400
"""Tokens of a sample that are shown."""


def show(check: Check, title: str, console: Any = None) -> None:
    """Print a check."""
    from rich.console import Console

    console = console or Console(highlight=False, soft_wrap=False)
    say = _sayer(console)
    say(title, "bold")
    for name, value in facts(check):
        say(f"{name:<14} {value}")
    lengths = check.lengths()
    if lengths:
        say("\ntokens per row", "bold")
        for label, count, bar in histogram(lengths["row"]):
            say(f"{label:>14} {count:>7} {bar}")
    for number, parts in check.samples:
        _sample(check, number, parts, console)
    console.print()
    for found in check.findings:
        say(
            f"{found.severity:<8} {says(found)}" + (f"  [{where(found)}]" if found.rows else ""),
            STYLES[found.severity],
        )
        mends = f" (--fix: {found.mends})" if found.mends else ""
        say(f"{'':<8} → {found.advice}{mends}")
    say(summary(check), "bold")


def _sayer(console: Any) -> Any:
    from rich.text import Text

    return lambda words, style="": console.print(Text(words, style=style), soft_wrap=not console.is_terminal)


def _sample(check: Check, number: int, parts: list[Any], console: Any) -> None:
    from rich.text import Text

    tokenizer = check.subject.tokenizer
    for row in parts:
        trained = sum(row.mask)
        name = f"row {number}" + (f", {row.part}" if row.part else "")
        words = f"{trained} of {len(row.ids)} tokens trained" if trained else f"{len(row.ids)} tokens"
        console.print(Text(f"\n{name}: {words}", style="bold"))
        if console.is_terminal:
            console.print(_coloured(row, tokenizer))
        else:
            console.print(Text(_marked(row, tokenizer)), soft_wrap=True)


def _coloured(row: Any, tokenizer: Any) -> Any:
    from rich.text import Text

    text = Text()
    for place, (token, label) in enumerate(labelled(row, tokenizer)):
        if place == LONGEST:
            text.append(" …")
            break
        text.append(_visible(token), style=TOKENS[label][place % 2])
    return text


def _marked(row: Any, tokenizer: Any) -> str:
    """Without colour, brackets say what is trained."""
    marks = {"trained": "⟦{}⟧", "prompt": "{}", "left out": "⟨{}⟩"}
    words = "".join(marks[label].format(_visible(text)) for text, label in runs(row, tokenizer))
    return words if len(words) <= 4 * LONGEST else words[: 4 * LONGEST] + " …"


def _visible(text: str) -> str:
    return text.replace("\n", "↵\n")
