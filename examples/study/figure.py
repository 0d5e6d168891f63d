"""`python examples/study/figure.py DIR --out FILE.svg`: PPO's metrics over episodes, in 4 columns, with bands over the seeds.

DIR holds `seed-*/ppo/metrics.jsonl`. A line is the mean of the seeds, its band reaches from the lowest to the highest.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from trellis.monitor import read_history

METRICS = (
    "objective/kl",
    "objective/entropy",
    "objective/non_score_reward",
    "objective/rlhf_reward",
    "objective/scores",
    "policy/approxkl_avg",
    "policy/clipfrac_avg",
    "policy/entropy_avg",
    "loss/policy_avg",
    "loss/value_avg",
    "val/clipfrac_avg",
    "val/ratio",
    "val/ratio_var",
    "val/num_eos_tokens",
    "lr",
    "eps",
)
COLUMNS = 4
GREY, LINE = "#858585", "#3d85d8"


def series(
    histories: Sequence[Sequence[dict[str, Any]]], name: str
) -> list[tuple[float, float, float, float]]:
    """[(episode, mean, lowest, highest)] where every seed has the metric."""
    runs = [{r["episode"]: r[name] for r in history if name in r and "episode" in r} for history in histories]
    shared = sorted(set.intersection(*(set(run) for run in runs)))
    values = [[run[at] for run in runs] for at in shared]
    return [(at, fmean(found), min(found), max(found)) for at, found in zip(shared, values, strict=True)]


def draw(histories: Sequence[Sequence[dict[str, Any]]], path: Path) -> None:
    """The figure; its colours can be read on white and on black. Raises ValueError for a metric that no run has."""
    import matplotlib
    from matplotlib.figure import Figure

    names = (
        "text.color",
        "axes.edgecolor",
        "axes.labelcolor",
        "axes.titlecolor",
        "xtick.color",
        "ytick.color",
    )
    settings: dict[str, Any] = dict.fromkeys(names, GREY)
    settings |= {"svg.fonttype": "none", "svg.hashsalt": "study", "font.size": 8}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(12, 9), layout="constrained")
        panels = figure.subplots(len(METRICS) // COLUMNS, COLUMNS, sharex=True).flat
        for i, (panel, name) in enumerate(zip(panels, METRICS, strict=True)):
            points = series(histories, name)
            if not points:
                raise ValueError(f"no run has logged {name}")
            at, mean, low, high = zip(*points, strict=True)
            panel.fill_between(at, low, high, color=LINE, alpha=0.25, linewidth=0)
            panel.plot(at, mean, color=LINE, linewidth=1.4)
            panel.set_title(name, fontsize=9)
            panel.patch.set_alpha(0)
            panel.grid(alpha=0.25)
            panel.spines[["top", "right"]].set_visible(False)
            if i >= len(METRICS) - COLUMNS:
                panel.set_xlabel("episodes")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(
            path,
            transparent=path.suffix == ".svg",
            metadata={"Date": None} if path.suffix == ".svg" else None,
        )


def main(arguments: list[str] | None = None) -> None:
    """Draw the figure of the seeds in a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="What the study wrote.")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/study.svg"), help="The figure (svg, png or pdf)."
    )
    asked = parser.parse_args(arguments)
    runs = sorted(asked.folder.glob("seed-*/ppo"))
    if not runs:
        parser.error(
            f"{asked.folder} holds no seed-*/ppo; run python -m examples.study --out {asked.folder} first"
        )
    draw([read_history(run) for run in runs], asked.out)


if __name__ == "__main__":
    main()
