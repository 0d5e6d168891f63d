"""A check as one page that needs nothing else: every text is escaped, nothing is loaded from anywhere."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from .check import Check
from .lengths import histogram
from .words import LABELS, facts, labelled, says, summary, where

LONGEST = 4000
"""Tokens of a sample that are shown."""


def page(check: Check, title: str) -> str:
    """The page's HTML."""
    lengths = check.lengths()
    return _template().render(
        title=title,
        facts=facts(check),
        bins=_bins(lengths["row"]) if lengths else [],
        findings=[(found, says(found), where(found)) for found in check.findings],
        summary=summary(check),
        samples=[_sample(check, number, row) for number, parts in check.samples for row in parts],
        labels=LABELS,
    )


@cache
def _template() -> Any:
    from jinja2 import Environment

    text = files("trellis.plan").joinpath("check.html.jinja").read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)


def write_page(check: Check, title: str, path: str) -> None:
    """Write the page. Raises OSError where that cannot be."""
    Path(path).write_text(page(check, title), encoding="utf-8")


def _bins(counts: list[int]) -> list[tuple[str, int, float]]:
    bins = histogram(counts)
    most = max(count for _, count, _ in bins)
    return [(label, count, round(100 * count / most, 1)) for label, count, _ in bins]


def _sample(check: Check, number: int, row: Any) -> dict[str, Any]:
    tokens = list(labelled(row, check.subject.tokenizer))
    shown = zip(row.ids[:LONGEST], tokens[:LONGEST], strict=True)
    return {
        "name": f"row {number}" + (f", {row.part}" if row.part else ""),
        "words": f"{sum(row.mask)} of {len(tokens)} tokens trained",
        "tokens": [(token, text, label.replace(" ", "-")) for token, (text, label) in shown],
        "more": max(0, len(tokens) - LONGEST),
    }
