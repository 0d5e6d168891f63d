"""What a log shows of a run that goes wrong: functions of its last points; `health_rules` names them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from .health_statistics import DOUBT, SURE, above, below, correlation, fallen, partial, rising, sure

LONGEST = 40
"""Points of the log that are kept."""
FIRST = 10
"""Points of a run's beginning that are kept."""
Point = Mapping[str, Any]


class Stream:
    """The log of a run as rules read it: one point per log, on-policy one per rollout. `pairs`: pairs of an optimizer step;
    `sure`, `doubt`: standard deviations at which something is believed, and at which something speaks against it."""

    def __init__(self, method: str, pairs: int = 0) -> None:
        self.method, self.pairs, self.count = method, pairs, 0
        self.sure, self.doubt = SURE, DOUBT
        self.first: list[Point] = []
        self.last: deque[Point] = deque(maxlen=LONGEST)

    def believe(self, already: bool) -> None:
        """What was found `already` is believed on half the evidence, so that it does not come and go."""
        self.sure, self.doubt = (SURE / 2, 2 * DOUBT) if already else (SURE, DOUBT)

    def add(self, point: Point) -> None:
        """One more log of training."""
        if self.last and "episode" in point and self.last[-1].get("episode") == point["episode"]:
            self.last[-1] = point  # the same rollout: what is told of it would count twice
            return
        self.count += 1
        self.last.append(point)
        if len(self.first) < FIRST:
            self.first.append(point)

    def lately(self, name: str, n: int, *, skip: int = 0) -> list[float]:
        """The last n values of a metric; none where there are not so many beyond the first `skip` points of the run."""
        if self.count < n + skip:
            return []
        return numbers(list(self.last)[-n:], name)

    def early(self, name: str, n: int) -> list[float]:
        """The first n values of a metric in this run."""
        return numbers(self.first[:n], name)


def numbers(points: Sequence[Point], name: str) -> list[float]:
    """The values of a metric, where every point has a finite one."""
    found = [p.get(name) for p in points]
    fine = [float(x) for x in found if isinstance(x, int | float) and math.isfinite(x)]
    return fine if len(fine) == len(points) else []


def kl_blow_up(s: Stream) -> str | None:
    name, length = (
        ("objective/kl", "response/length") if s.method == "ppo" else ("kl", "completions/mean_length")
    )
    kls, lengths = s.lately(name, 4), s.lately(length, 4)
    if not kls or not lengths:
        return None
    whole = [kl * n if s.method == "grpo" else kl for kl, n in zip(kls, lengths, strict=True)]
    each = [kl / max(n, 1.0) for kl, n in zip(whole, lengths, strict=True)]
    if min(whole) <= 10 or min(each) <= 1:
        return None
    return f"the policy is {median(whole):.3g} nats per completion from its reference, {median(each):.2g} per token"


def kl_negative(s: Stream) -> str | None:
    values = s.lately("objective/kl" if s.method == "ppo" else "kl", 20)
    if not values or fmean(values) >= -0.05 or below(values, 0, apart=True) < s.sure:
        return None
    return f"the KL was {fmean(values):.3g} on average over 20 rollouts: of samples of the policy itself it cannot be negative"


def entropy_collapse(s: Stream) -> str | None:
    name = "policy/entropy_avg" if s.method == "ppo" else "entropy"
    start, now = s.early(name, 3), s.lately(name, 5, skip=3)
    if not start or not now or max(now) >= 0.1 or max(now) >= 0.1 * median(start):
        return None
    return f"the entropy fell from {median(start):.3g} to {median(now):.2g} nats per token: hardly anything is explored"


def ratio_not_one(s: Stream) -> str | None:
    values = s.lately("ratio/off_at_start", 3)
    if not values or min(values) <= 0.05:
        return None
    return f"before anything was learned from a rollout, log-probabilities were off by {median(values):.2g} per token already"


def clip_fraction(s: Stream) -> str | None:
    name = "policy/clipfrac_avg" if s.method == "ppo" else "clip_ratio/region_mean"
    values = s.lately(name, 5)
    if not values or min(values) <= 0.4:
        return None
    return f"{median(values):.0%} of the ratios are clipped, so they teach nothing"


def critic_useless(s: Stream) -> str | None:
    values = s.lately("val/explained_variance", 20, skip=10)
    bounded = [max(x, -1.0) for x in values]  # it has no lower end, and one wild value would hide the others
    if not values or fmean(bounded) > 0 or below(bounded, 0.05) < s.sure:
        return None
    return f"the critic explains {median(values):.0%} of the returns' variance over 20 rollouts: no more than a constant would"


def rewards_equal(s: Stream) -> str | None:
    values, scores = s.lately("objective/scores_std", 4), s.lately("objective/scores", 4)
    if not values or not scores or max(values) > 1e-6 * max(1.0, *map(abs, scores)):
        return None
    return "all completions of 4 rollouts in a row earned the same score: nothing is learned from it"


def reward_by_length(s: Stream) -> str | None:
    reward, length = (
        ("objective/scores", "response/length")
        if s.method == "ppo"
        else ("reward", "completions/mean_length")
    )
    r, n = s.lately(reward, 30), s.lately(length, 30)
    if not r or not n or rising(r) < s.sure or abs(rising(n)) < s.sure:
        return None
    time = [float(i) for i in range(30)]
    own, through = partial(r, time, n), partial(r, n, time)
    if abs(sure(own, 30, 1)) > s.doubt or abs(sure(through, 30, 1)) < s.sure:
        return None
    way = "longer" if correlation(r, n) > 0 else "shorter"
    return f"over 30 rollouts the reward rose only as completions got {way}; at equal length it did not (correlation {own:.2f})"


def margins_negative(s: Stream) -> str | None:
    values = s.lately("margin" if s.method == "reward" else "rewards/margins", 20)
    if not values or below(values, 0) < s.sure or rising(values) > s.doubt:
        return None
    return f"over 20 logs rejected answers scored higher than chosen ones, by {-fmean(values):.3g}, and do not fall behind"


def accuracy_at_chance(s: Stream) -> str | None:
    values = s.lately("accuracy" if s.method == "reward" else "rewards/accuracies", 20, skip=5)
    steps = s.lately("step", 20)
    if not values or not steps:
        return None
    pairs = s.pairs * 20 * (steps[-1] - steps[0]) / 19
    error, mean = math.sqrt(0.25 / max(pairs, 1.0)), fmean(values)
    if pairs < 1000 or mean - s.doubt * error >= 0.5 or mean + 3 * error >= 0.6 or rising(values) > s.doubt:
        return None
    return f"of the last {pairs:,.0f} pairs {mean:.1%} were told right: no more than by a coin, where 60% would be seen"


KNOWN = {0.0: "0", math.log(2): "ln 2", 0.5: "½", 1.0: "1"}


def loss_stuck(s: Stream) -> str | None:
    values, rates = s.lately("loss", 8), s.lately("learning_rate", 8)
    if not values or max(values) - min(values) > 1e-4 * max(abs(fmean(values)), 1e-4):
        return None
    if rates and rates[-1] > rates[0]:
        return None  # it warms up
    mean = fmean(values)
    named = next((f" ({told})" for x, told in KNOWN.items() if abs(mean - x) < 1e-4), "")
    rate = ", and the learning rate 0" if rates and max(rates) == 0 else ""
    return f"the loss was {mean:.4g}{named} in each of 8 logs{rate}: nothing moves"


def ended(s: Stream) -> tuple[list[float], list[float]]:
    """Shares of completions that ended by themselves: early and lately."""
    name = "response/truncated" if s.method == "ppo" else "completions/clipped_ratio"
    early, late = s.early(name, FIRST), s.lately(name, 10, skip=FIRST)
    return [1 - x for x in early], [1 - x for x in late]


def eos_falling(s: Stream) -> str | None:
    before, after = ended(s)
    if not before or not after or fmean(before) - fmean(after) < 0.2 or fallen(before, after) < s.sure:
        return None
    return f"{fmean(before):.0%} of the completions ended by themselves at first, {fmean(after):.0%} do now"


def truncation(s: Stream) -> str | None:
    values = s.lately("response/truncated" if s.method == "ppo" else "completions/clipped_ratio", 10)
    if not values or above(values, 0.5) < s.sure:
        return None
    return f"{fmean(values):.0%} of the completions were cut off at their longest length"
