"""The curves of runs as files for papers and slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..monitor import draw_curves
from .reading import Run
from .series import panels


def write_pictures(runs: Sequence[Run], folder: str | Path) -> list[Path]:
    """One figure per run, as PNG and as SVG; returns the files. Raises ValueError for a run without curves."""
    stems = [run.name.replace("/", "-") for run in runs]
    return [
        draw_curves(_short(run), Path(folder) / f"{stem}.{kind}", title=run.name)
        for run, stem in zip(runs, stems, strict=True)
        for kind in ("png", "svg")
    ]


def _short(run: Run) -> list[dict[str, Any]]:
    """The run's curves as a log, so short that a file of them is small."""
    found = panels([(run.name, [run])])
    return [
        {"step": x, name: y}
        for name, (curve,) in found.items()
        for x, y in zip(curve["x"], curve["mean"], strict=True)
    ]
