"""A run's curves as one picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_NO_CURVE = {"step", "epoch", "episode", "total_flos"}
_COLUMNS = 4


def curves(
    records: Iterable[Mapping[str, Any]], names: Sequence[str] | None = None
) -> dict[str, list[tuple[float, float]]]:
    """{name: [(x, y), …]} of the finite numbers in a log history; x is `episode` where the run counts them, else `step`.

    Without `names`: every number logged at least twice, in order of appearance.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        x = record.get("episode", record.get("step"))
        for name, y in record.items():
            wanted = name in names if names is not None else name not in _NO_CURVE
            if wanted and x is not None and isinstance(y, int | float) and math.isfinite(y):
                found.setdefault(name, []).append((float(x), float(y)))
    if names is not None:
        return {name: found[name] for name in names if name in found}
    return {name: points for name, points in found.items() if len(points) > 1}


def draw_curves(
    records: Iterable[Mapping[str, Any]],
    path: str | Path,
    *,
    names: Sequence[str] | None = None,
    title: str = "",
) -> Path:
    """Draw one small panel per metric into `path` (png, svg or pdf by its ending) and return it.

    Raises ValueError when there is nothing to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = list(records)
    series = curves(records, names)
    if not series:
        raise ValueError("no curve to draw: the history holds no metric with two finite values")
    columns = min(_COLUMNS, len(series))
    lines = -(-len(series) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.2 * lines + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title)
    axis = "episode" if any("episode" in record for record in records) else "step"
    for i, (name, points) in enumerate(series.items()):
        panel = figure.add_subplot(lines, columns, i + 1)
        panel.plot(*zip(*points, strict=True), linewidth=1.2)
        panel.set_title(name, fontsize=8)
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.3)
        if i >= len(series) - columns:
            panel.set_xlabel(axis, fontsize=7)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
