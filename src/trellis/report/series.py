"""Curves that a page can hold: runs of one experiment as a mean with a band, long ones in buckets."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from ..monitor.curves import curves
from .reading import Run

Points = Sequence[tuple[float, float]]
BUCKETS = 300
FIGURES = 5
"""Significant digits of a number on the page."""


def grouped(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """The runs by experiment, each with a name: the run's, or how many seeds there are of what."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.experiment, []).append(run)
    return [(_name(members), members) for members in found.values()]


def _name(members: Sequence[Run]) -> str:
    first = members[0].name
    return first if len(members) == 1 else f"{first} and {len(members) - 1} more seeds"


def panels(groups: Sequence[tuple[str, Sequence[Run]]]) -> dict[str, list[dict[str, Any]]]:
    """{metric: one curve per group that logged it}: `group` its number, `x` steps, `mean`, and where there is a band, `low` and
    `high`: the extremes within a bucket of steps, or over the seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number, (_, members) in enumerate(groups):
        series = [curves(_by_step(run)) for run in members]
        for name in dict.fromkeys(name for one in series for name in one):
            lines = [_increasing(one[name]) for one in series if name in one]
            curve = bucketed(lines[0]) if len(lines) == 1 else band(lines)
            found.setdefault(name, []).append({"group": number, **_rounded(curve)})
    return found


def _by_step(run: Run) -> list[Mapping[str, Any]]:
    return [{name: value for name, value in record.items() if name != "episode"} for record in run.history]


def _increasing(points: Points) -> list[tuple[float, float]]:
    """The last value of each step, in order."""
    return sorted(dict(points).items())


def bucketed(points: Points, buckets: int = BUCKETS) -> dict[str, list[float]]:
    """A curve of at most `buckets` points: the mean of each bucket of steps, at its mean step, with its lowest and highest value.
    A curve that is short enough is kept as it is, without a band."""
    if len(points) <= buckets:
        return {"x": [x for x, _ in points], "mean": [y for _, y in points]}
    first, last = points[0][0], points[-1][0]
    width = (last - first) / buckets

    def place(point: tuple[float, float]) -> int:
        return min(buckets - 1, int((point[0] - first) / width))

    cut = [list(group) for _, group in groupby(points, key=place)]
    ys = [[y for _, y in group] for group in cut]
    return {
        "x": [sum(x for x, _ in group) / len(group) for group in cut],
        "mean": [sum(y) / len(y) for y in ys],
        "low": [min(y) for y in ys],
        "high": [max(y) for y in ys],
    }


def band(lines: Sequence[Points], buckets: int = BUCKETS) -> dict[str, list[float]]:
    """The mean of several curves, with the lowest and highest, at the steps of the longest of them; between its own steps a curve
    is read on a straight line, beyond them not at all."""
    longest = max(lines, key=lambda line: line[-1][0])
    xs = [x for x, _ in longest]
    if len(xs) > buckets:
        xs = [xs[i * len(xs) // buckets] for i in range(buckets)] + [xs[-1]]
    columns = [[y for line in lines if (y := read_at(line, x)) is not None] for x in xs]
    return {
        "x": xs,
        "mean": [sum(ys) / len(ys) for ys in columns],
        "low": [min(ys) for ys in columns],
        "high": [max(ys) for ys in columns],
    }


def read_at(points: Points, x: float) -> float | None:
    """The curve's value at `x`; None outside of it."""
    place = bisect_left(points, (x, float("-inf")))
    if place == len(points) or (place == 0 and points[0][0] != x):
        return None
    x1, y1 = points[place]
    if x1 == x:
        return y1
    x0, y0 = points[place - 1]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def _rounded(curve: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [float(f"{value:.{FIGURES}g}") for value in values] for name, values in curve.items()}
