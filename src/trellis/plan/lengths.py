"""How long rows are, in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .findings import Subject

BARS = " ▏▎▍▌▋▊▉█"
WIDTH = 30
BINS = 8


@dataclass(frozen=True)
class Spread:
    """Least, median, 90th and 99th percentile, most, and the sum of some counts."""

    least: int
    median: int
    most_90: int
    most_99: int
    most: int
    total: int

    def __str__(self) -> str:
        return f"{self.least} / {self.median} / {self.most_90} / {self.most_99} / {self.most}"


SPREAD = "least / median / 90 % / 99 % / most"


def spread(counts: Sequence[int]) -> Spread:
    """The spread of at least one count: each percentile is one of the counts."""
    order = sorted(counts)
    at = [order[min(len(order) - 1, int(share * len(order)))] for share in (0, 0.5, 0.9, 0.99)]
    return Spread(at[0], at[1], at[2], at[3], order[-1], sum(order))


def totals(subject: Subject) -> list[int]:
    """Tokens of every kept row that a model reads."""
    return [len(row.ids) for _, row in subject.tokens]


def wanted_length(counts: Sequence[int], multiple: int = 16) -> int:
    """A limit that 99 % of the counts keep (all of them, where that costs at most a quarter more), as a multiple."""
    if not counts:
        return multiple
    found = spread(counts)
    limit = found.most if found.most <= 1.25 * found.most_99 else found.most_99
    return -(-max(1, limit) // multiple) * multiple


def histogram(counts: Sequence[int], bins: int = BINS) -> list[tuple[str, int, str]]:
    """(range, count, bar) of at most `bins` ranges of equal width."""
    low, high = min(counts), max(counts)
    width = max(1, -(-(high - low + 1) // bins))
    amounts = [0] * -(-(high - low + 1) // width)
    for count in counts:
        amounts[(count - low) // width] += 1
    peak = max(amounts)
    ranges = [(low + i * width, min(high, low + (i + 1) * width - 1)) for i in range(len(amounts))]
    return [
        (f"{a} … {b}" if a != b else f"{a}", n, bar(n / peak))
        for (a, b), n in zip(ranges, amounts, strict=True)
    ]


def bar(share: float, width: int = WIDTH) -> str:
    """A bar of `share` of `width` characters, to an eighth of one."""
    eighths = round(share * width * 8)
    return BARS[8] * (eighths // 8) + BARS[eighths % 8].strip()
