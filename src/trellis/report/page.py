"""Runs as one page that needs nothing else: every text is escaped, nothing is loaded from anywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from .facts import facts
from .meanings import Meanings, in_order
from .reading import Run
from .samples import plain, side_by_side
from .series import grouped, panels
from .settings import settings

CLEARED = "cleared"
OPEN = 12
"""Curves that are shown at once; the others are drawn when their part of the page is opened."""


def page(runs: Sequence[Run], title: str, estimates: Sequence[str] = ()) -> str:
    """The page's HTML. `estimates`: what was expected of each run's cost, in words."""
    groups = grouped(runs)
    curves = panels(groups)
    meanings = Meanings(run.trainer for run in runs)
    shown = [
        {"name": name, "meaning": meanings.of(name), "curves": curves[name]} for name in in_order(curves)
    ]
    return _template().render(
        title=title,
        runs=runs,
        groups=[(name, members) for name, members in groups],
        facts=facts(runs, estimates),
        settings=settings(runs),
        first=shown[:OPEN],
        more=shown[OPEN:],
        data=_inline(
            {"panels": shown, "groups": [name for name, _ in groups], "open": OPEN, "marks": _marks(groups)}
        ),
        samples=[(run.name, rows) for run in runs if (rows := side_by_side(run))],
        health=[(run.name, [_entry(row) for row in run.health]) for run in runs if run.health],
        bands=any(len(members) > 1 for _, members in groups),
    )


def write_page(runs: Sequence[Run], title: str, path: str | Path, estimates: Sequence[str] = ()) -> None:
    """Write the page. Raises OSError where that cannot be."""
    Path(path).write_text(page(runs, title, estimates), encoding="utf-8")


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader

    loader = PackageLoader("trellis.report", "")
    return Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(
        "report.html.jinja"
    )


def _inline(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _marks(groups: Sequence[tuple[str, Sequence[Run]]]) -> list[tuple[int, int, str]]:
    """(group, step, name) of what the runs' health has said."""
    return [
        (number, entry["step"], str(entry.get("name", "")))
        for number, (_, members) in enumerate(groups)
        for run in members
        for entry in run.health
        if isinstance(entry.get("step"), int) and entry.get("event") != CLEARED
    ]


def _entry(row: dict[str, Any]) -> tuple[str, str, str, str]:
    step, name, message, advice = (plain(row.get(key, "")) for key in ("step", "name", "message", "advice"))
    return (
        (step, name, f"over: {message}", "") if row.get("event") == CLEARED else (step, name, message, advice)
    )
