"""How sure one can be of what a short stretch of a noisy log shows: every answer is a number of standard deviations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

SURE = 4.0
"""Standard deviations at which a rule believes what it sees: one chance in 30,000."""
DOUBT = 2.0
"""Standard deviations at which something speaks against it."""
Values = Sequence[float]


def spread(values: Values) -> float:
    """The sample standard deviation."""
    mean = fmean(values)
    return math.sqrt(sum((x - mean) ** 2 for x in values) / max(1, len(values) - 1))


def normal(t: float, freedom: float) -> float:
    """Student's t as the normal deviate of the same probability (Wallace 1959, Bounds on normal approximations, §3)."""
    if math.isinf(t) or freedom <= 0:
        return t if freedom > 0 else 0.0
    size = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return math.copysign(size, t)


def independent(values: Values) -> float:
    """How many independent values weigh as much as these, whose neighbours may be alike (lag-one correlation, n(1−ρ)/(1+ρ))."""
    mean, n = fmean(values), len(values)
    whole = sum((x - mean) ** 2 for x in values)
    if whole <= 1e-24:
        return float(n)
    lag = sum((a - mean) * (b - mean) for a, b in zip(values[:-1], values[1:], strict=True)) / whole
    lag = min(0.9, max(0.0, lag))
    return n * (1 - lag) / (1 + lag)


def above(values: Values, bound: float, *, apart: bool = False) -> float:
    """How surely the mean of the values lies above `bound`; negative where it lies below. `apart`: their noise is independent,
    whatever they do over time."""
    n, gap = float(len(values)) if apart else independent(values), fmean(values) - bound
    error = spread(values) / math.sqrt(n)
    if error <= 1e-12:
        return math.copysign(math.inf, gap) if gap else 0.0
    return normal(gap / error, n - 1)


def below(values: Values, bound: float, *, apart: bool = False) -> float:
    """How surely the mean of the values lies below `bound`."""
    return -above(values, bound, apart=apart)


def fallen(before: Values, after: Values) -> float:
    """How surely the mean of `after` lies below that of `before` (Welch)."""
    parts = [spread(v) ** 2 / independent(v) for v in (before, after)]
    gap, error = fmean(before) - fmean(after), math.sqrt(sum(parts))
    if error <= 1e-12:
        return math.copysign(math.inf, gap) if gap else 0.0
    return normal(gap / error, min(len(before), len(after)) - 1)


def correlation(a: Values, b: Values) -> float:
    """Pearson's; 0 where one of them does not vary."""
    mean_a, mean_b = fmean(a), fmean(b)
    top = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    size = math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))
    return 0.0 if size <= 1e-24 else max(-1.0, min(1.0, top / size))


def sure(r: float, n: int, given: int = 0) -> float:
    """How surely a correlation found on n points is not 0, with `given` variables held fixed (Fisher's transformation)."""
    if n - given <= 3:
        return 0.0
    return math.atanh(max(-1 + 1e-12, min(1 - 1e-12, r))) * math.sqrt(n - 3 - given)


def partial(a: Values, b: Values, given: Values) -> float:
    """The correlation of a and b that is left when `given` is held fixed."""
    ab, ag, bg = correlation(a, b), correlation(a, given), correlation(b, given)
    size = math.sqrt((1 - ag**2) * (1 - bg**2))
    return 0.0 if size <= 1e-9 else max(-1.0, min(1.0, (ab - ag * bg) / size))


def rising(values: Values) -> float:
    """How surely the values go up over time."""
    return sure(correlation(values, [float(i) for i in range(len(values))]), len(values))
