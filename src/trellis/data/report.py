"""What became of a data set: rows kept, cut and dropped, counted before the first step and said in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

WORST = 3


@dataclass(frozen=True)
class DataReport:
    """Counts of one prepared data set. `trained` is (min, median, max) of trained tokens per kept row (for prompts: of their
    length); `worst` are row numbers of the input with what happened to them; `needed` is (least, most) max_length that a
    dropped row would have needed; `stopped` is the share of kept rows that end in a trained stop token; `sampled` says that
    only the beginning of a stream was looked at; `numbers` are the rows of the input by what happened to them: each reason for
    which rows were dropped, and of the kept ones "cut", "merged" (the prompt's tokens with the answer's) and "endless" (no
    trained stop token).
    """

    name: str
    rows_in: int
    rows_kept: int
    rows_cut: int
    rows_dropped: int
    trained: tuple[int, float, int]
    worst: list[tuple[int, str]] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    needed: tuple[int, int] = (0, 0)
    stopped: float = 0.0
    seams_moved: int = 0
    sampled: bool = False
    unit: str = "trained tokens"
    numbers: dict[str, list[int]] = field(default_factory=dict, repr=False)

    @property
    def line(self) -> str:
        """One line, for the log."""
        low, mid, high = self.trained
        rows = f"first {self.rows_in} rows of a stream" if self.sampled else f"{self.rows_in} rows"
        parts = [
            f"{self.name}: {rows}, {self.rows_kept} kept, {self.rows_cut} cut, {self.rows_dropped} dropped",
            f"{self.unit} per row {low} / {mid:g} / {high} (min / median / max)",
        ]
        if self.unit != "prompt tokens":
            parts.append(f"{self.stopped:.0%} end in a trained stop token")
        if self.seams_moved:
            parts.append(f"{self.seams_moved} prompts whose tokens merge with the answer")
        return "; ".join(parts)

    def __str__(self) -> str:
        rows: list[tuple[str, Any]] = [
            ("rows in", self.rows_in),
            ("rows kept", self.rows_kept),
            ("rows cut", self.rows_cut),
        ]
        rows += [("rows dropped", self.rows_dropped)] + [(f"  {why}", n) for why, n in self.reasons.items()]
        rows += [(f"row {i}", why) for i, why in self.worst]
        width = max(len(label) for label, _ in rows)
        return "\n".join([self.line, *(f"  {label:<{width}}  {value}" for label, value in rows)])


def build_report(
    stats: Mapping[str, Sequence[Any]], name: str, *, unit: str = "trained tokens", sampled: bool = False
) -> DataReport:
    """The report of a data set from the bookkeeping columns of its rows (`tokenize.STATS`)."""
    drops = list(stats["_drop"])
    kept = [i for i, why in enumerate(drops) if not why]
    trained = [stats["_trained"][i] for i in kept] or [0]
    lost = sorted((i for i, why in enumerate(drops) if why), key=lambda i: -stats["_need"][i])
    cuts = sorted((i for i in kept if stats["_cut"][i]), key=lambda i: -stats["_cut"][i])
    worst = [(i, f"dropped: {drops[i]} (needs {stats['_need'][i]})") for i in lost[:WORST]]
    worst += [(i, f"{stats['_cut'][i]} tokens cut") for i in cuts[: WORST - len(worst)]]
    needs = [stats["_need"][i] for i in lost if stats["_need"][i]] or [0]
    return DataReport(
        name=name,
        rows_in=len(drops),
        rows_kept=len(kept),
        rows_cut=len(cuts),
        rows_dropped=len(lost),
        trained=(min(trained), median(trained), max(trained)),
        worst=worst,
        reasons=dict(Counter(why for why in drops if why)),
        needed=(min(needs), max(needs)),
        stopped=sum(stats["_stopped"][i] for i in kept) / len(kept) if kept else 0.0,
        seams_moved=sum(stats["_seam"]),
        sampled=sampled,
        unit=unit,
        numbers=_numbers(stats, kept, unit != "prompt tokens"),
    )


def _numbers(stats: Mapping[str, Sequence[Any]], kept: Sequence[int], ends: bool) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for i, why in enumerate(stats["_drop"]):
        if why:
            found.setdefault(why, []).append(i)
    marks = {
        "cut": stats["_cut"],
        "merged": stats["_seam"],
        "endless": [ends and not x for x in stats["_stopped"]],
    }
    of_kept = {name: [i for i in kept if values[i]] for name, values in marks.items()}
    return found | {name: rows for name, rows in of_kept.items() if rows}


def require_rows(report: DataReport, option: str, value: int | None) -> None:
    """Raises ValueError, naming the option to change and the length needed, when nothing at all was kept."""
    if report.rows_kept:
        return
    what = ", ".join(f"{n} × {why}" for why, n in report.reasons.items())
    least, most = report.needed
    if value is not None and most > value:
        raise ValueError(
            f"{report.name}: none of the {report.rows_in} rows can be used with {option}={value} ({what}). The shortest "
            f"needs {option}={least}, the longest {most}. Write {option}={most}, or shorten the rows."
        )
    raise ValueError(
        f"{report.name}: none of the {report.rows_in} rows can be used ({what}). Expected at least one row to learn from. "
        "Look at the rows' completions (or the assistant's turns, with assistant_only_loss) and at the masks."
    )
