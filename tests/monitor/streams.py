"""Logs of runs that never were: healthy ones with noise, and each of them with one thing wrong."""

import math
import random

ONLINE = ("ppo", "grpo", "rloo")
PAIRS = ("reward", "dpo", "orpo", "cpo")


def healthy(method, seed, logs=300):
    """A log of `method` in which all is well: it learns, with noise, and its figures wander."""
    noise = random.Random(f"{method} {seed}")
    drift = 0.0
    for i in range(logs):
        drift = 0.9 * drift + noise.gauss(0, 1)
        yield {"step": 10 * (i + 1), **_common(noise, i, logs), **_own(method, noise, i / logs, drift, i)}


def _common(noise, i, logs):
    warm = min(1.0, (i + 1) / 20)
    return {"loss": 0.6 + noise.gauss(0, 0.02), "learning_rate": 1e-5 * warm * (1 - i / logs)}


def _own(method, noise, way, drift, i):
    if method in ONLINE:
        return _online(method, noise, way, drift, i)
    margins = {"reward": "margin"}.get(method, "rewards/margins")
    accuracy = {"reward": "accuracy"}.get(method, "rewards/accuracies")
    if method == "sft":
        return {"loss": 3 - 2 * way + noise.gauss(0, 0.1), "entropy": 2 - way}
    learned = 0.55 + 0.2 * (1 - math.exp(-8 * way))
    right = sum(noise.random() < learned for _ in range(80)) / 80
    found = {margins: 1.5 * way + 0.02 * drift + noise.gauss(0, 0.1) + 0.05}
    return (
        found
        if method == "kto"
        else {**found, accuracy: right, "loss": 0.69 - 0.3 * way + noise.gauss(0, 0.02)}
    )


def _online(method, noise, way, drift, i):
    length = 60 + 2 * drift + 20 * way + noise.gauss(0, 4)
    reward = 2 * (1 - math.exp(-3 * way)) + noise.gauss(0, 0.15)
    kl = 6 * (1 - math.exp(-4 * way)) + noise.gauss(0, 0.3)
    cut = min(1.0, max(0.0, 0.2 + noise.gauss(0, 0.08) + 0.02 * drift))
    entropy = 2.2 - 1.2 * way + noise.gauss(0, 0.1)
    clipped = min(1.0, max(0.0, 0.12 + noise.gauss(0, 0.05)))
    found = {
        "episode": 64 * (i + 1),
        "ratio/off_at_start": abs(noise.gauss(0, 2e-3)),
        "loss": noise.gauss(0, 1e-3),
    }
    if method == "ppo":
        return found | {
            "objective/kl": kl,
            "objective/scores": reward,
            "objective/scores_std": 0.8 + noise.gauss(0, 0.1),
            "policy/entropy_avg": entropy,
            "policy/clipfrac_avg": clipped,
            "response/length": length,
            "response/truncated": cut,
            "val/explained_variance": 0.6 * (1 - math.exp(-20 * way)) - 0.1 + noise.gauss(0, 0.15),
        }
    return found | {
        "kl": kl if method == "rloo" else abs(kl) / length,
        "reward": reward,
        "frac_reward_zero_std": min(1.0, max(0.0, 0.3 + noise.gauss(0, 0.1))),
        "entropy": entropy,
        "clip_ratio/region_mean": clipped,
        "completions/mean_length": length,
        "completions/clipped_ratio": cut,
    }


def _set(point, names, value):
    return {**point, **{name: value for name in names if name in point}}


def spoil(rule, point, noise, since):
    """A healthy point in which `rule` has something to find; `since`: logs since that began."""
    length = point.get("response/length", point.get("completions/mean_length", 1))
    per_token = "ratio/off_at_start" in point and "frac_reward_zero_std" in point
    cut, kl = ("response/truncated", "completions/clipped_ratio"), ("objective/kl", "kl")
    changed = {
        "kl-blow-up": (kl, 1.6 if per_token and point["kl"] < 1 else 1.6 * length),
        "kl-negative": (kl, -1 + noise.gauss(0, 0.4)),
        "entropy-collapse": (("policy/entropy_avg", "entropy"), 0.03 + abs(noise.gauss(0, 0.01))),
        "ratio-not-one": (("ratio/off_at_start",), 0.3 + noise.gauss(0, 0.05)),
        "clip-fraction": (("policy/clipfrac_avg", "clip_ratio/region_mean"), 0.6 + noise.gauss(0, 0.05)),
        "value-explained-variance": (("val/explained_variance",), -0.6 + noise.gauss(0, 0.2)),
        "rewards-all-equal": (("objective/scores_std",), 0.0),
        "margins-negative": (("margin", "rewards/margins"), -0.3 + noise.gauss(0, 0.1)),
        "accuracy-at-chance": (
            ("accuracy", "rewards/accuracies"),
            sum(noise.random() < 0.5 for _ in range(80)) / 80,
        ),
        "loss-stuck": (("loss",), math.log(2)),
        "eos-share-falling": (cut, min(1.0, 0.75 + noise.gauss(0, 0.08))),
        "truncation": (cut, min(1.0, 0.9 + noise.gauss(0, 0.05))),
    }
    if rule == "reward-by-length":
        longer = 60 + 1.5 * since + noise.gauss(0, 8)
        point = _set(point, ("response/length", "completions/mean_length"), longer)
        return _set(point, ("objective/scores", "reward"), 0.03 * longer + noise.gauss(0, 0.05))
    return _set(point, *changed[rule])
