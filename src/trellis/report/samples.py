"""What a policy wrote, at some of its steps, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..monitor.samples import CONTROL
from .reading import Run

STEPS = 4
ROWS = 6
LONGEST = 1500
TEXTS = ("prompt", "completion", "query", "model response", "response", "chosen", "rejected")
"""Columns that are shown as text; the others are numbers beside it."""

Row = dict[str, Any]


def side_by_side(run: Run) -> list[dict[str, Any]]:
    """Up to `ROWS` entries, each with one card per step: the same prompt at several steps where the run sampled one again, else
    whatever was sampled. A card: `step`, `texts` and `numbers` as (name, text)."""
    if not run.samples:
        return []
    steps = _spread(sorted({row["step"] for row in run.samples}), STEPS)
    at: dict[int, list[Row]] = {step: [] for step in steps}
    for row in run.samples:
        if row["step"] in at:
            at[row["step"]].append(row)
    again = _asked_again(at)
    picked: list[list[Row | None]]
    if again:
        prompts = _spread(again, ROWS)
        picked = [[_of(at[step], prompt) for step in steps] for prompt in prompts]
    else:
        counts = min(ROWS, max(map(len, at.values())))
        picked = [[_pick(at[step], i, counts) for step in steps] for i in range(counts)]
    return [{"cards": [_card(row) for row in rows if row]} for rows in picked]


def _spread(found: Sequence[Any], count: int) -> list[Any]:
    """`count` of them, evenly spread, the first and the last included."""
    if len(found) <= count:
        return list(found)
    return [found[i * (len(found) - 1) // (count - 1)] for i in range(count)]


def _asked_again(at: dict[int, list[Row]]) -> list[str]:
    """Prompts that were there at each of the steps."""
    if len(at) < 2:
        return []
    asked = [dict.fromkeys(_prompt(row) for row in rows) for rows in at.values()]
    return [prompt for prompt in asked[0] if prompt and all(prompt in other for other in asked[1:])]


def _prompt(row: Row) -> str:
    return str(row.get("prompt") or row.get("query") or "")


def _of(rows: Sequence[Row], prompt: str) -> Row:
    return next(row for row in rows if _prompt(row) == prompt)


def _pick(rows: Sequence[Row], place: int, count: int) -> Row | None:
    return _spread(rows, count)[place] if place < len(rows) else None


def _card(row: Row) -> dict[str, Any]:
    shown = {name: value for name, value in row.items() if name != "step" and value is not None}
    texts = [name for name in TEXTS if name in shown]
    texts += [name for name, value in shown.items() if isinstance(value, str) and name not in texts]
    return {
        "step": row["step"],
        "texts": [(name, plain(shown[name])[:LONGEST]) for name in texts],
        "numbers": [(name, plain(value)) for name, value in shown.items() if name not in texts],
    }


def plain(value: Any) -> str:
    """A value as text, its control characters written out."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", str(value))
