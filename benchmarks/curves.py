"""`python -m benchmarks curves [--chart FILE.svg]`: what one step costs against the length of prompts and responses, the group,
the vocabulary and the batch, beside the floor of matrix products.

A step is what GRPO does of it: sample, score with the reference, score the policy and go backward.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from trellis.rollout import SamplingParams, sample, to_batch
from trellis.scoring import score

from .measure import cpu_seconds, peak_memory
from .peers.page import table
from .peers.worker import matrix_rate
from .scoring import model_of


@dataclass(frozen=True)
class Step:
    """The size of a step: `prompts` of `prompt` tokens, `samples` responses of `response` tokens to each."""

    prompt: int = 256
    response: int = 64
    samples: int = 4
    vocabulary: int = 8_192
    prompts: int = 2

    def floor(self, model: LlamaForCausalLM) -> float:
        """Floating-point operations of the matrix products that are needed: sampling 2, reference 2, training 6 per parameter; of
        the last layer at the states that are read only."""
        head = model.lm_head.weight.numel()
        body = sum(p.numel() for p in model.model.layers.parameters() if p.dim() == 2)
        read = model.model.layers[-1].self_attn
        last = body / len(model.model.layers) - read.k_proj.weight.numel() - read.v_proj.weight.numel()
        trained = self.prompts * self.samples * self.response
        tokens = self.prompts * self.prompt + trained
        return 10 * ((body - last) * tokens + last * trained + head * trained)


AXES: dict[str, tuple[int, ...]] = {
    "prompt": (64, 128, 256, 512, 1_024),
    "response": (16, 32, 64, 128, 256),
    "samples": (1, 2, 4, 8, 16),
    "vocabulary": (2_048, 8_192, 32_768, 131_072),
    "prompts": (1, 2, 4, 8, 16),
}
TITLES = {
    "prompt": "tokens of a prompt",
    "response": "tokens of a response",
    "samples": "responses to a prompt",
    "vocabulary": "vocabulary",
    "prompts": "prompts of a step",
}


@dataclass(frozen=True)
class Point:
    """What a step of some size took: CPU seconds, MiB above weights and gradients, and the seconds of its floor."""

    at: int
    seconds: float
    memory: float
    floor: float


def run(model: LlamaForCausalLM, size: Step) -> None:
    """One step; gradients are added to those that are there."""
    draw = torch.Generator().manual_seed(0)
    prompts = torch.randint(1, size.vocabulary, (size.prompts, size.prompt), generator=draw).tolist()
    params = SamplingParams(max_new_tokens=size.response)
    rows = size.prompts * size.samples
    done = sample(model, prompts, params, n=size.samples, seeds=list(range(rows)))
    batch = to_batch(prompts, done)
    with torch.no_grad():
        reference = score(model, batch).logps
    logps = score(model, batch, entropy=True).logps
    (logps - reference).sum().backward()


def measured(size: Step, at: int, rate: float, repeats: int, width: int) -> Point:
    """A step of this size, on a model of its own."""
    model = model_of(size.vocabulary, width)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    memory = peak_memory(lambda: run(model, size))
    run(model, size)
    seconds = statistics.median(cpu_seconds(lambda: run(model, size)) for _ in range(repeats))
    return Point(at, seconds, memory, size.floor(model) / rate)


def slope(points: Sequence[Point], name: str) -> float:
    """The power of the cost's growth over the second half of an axis: 1 is linear, 0 none."""
    middle, last = points[(len(points) - 1) // 2], points[-1]
    grown = max(getattr(last, name), 1e-9) / max(getattr(middle, name), 1e-9)
    return math.log(grown) / math.log(last.at / middle.at)


def rows_of(found: dict[str, list[Point]]) -> list[list[str]]:
    """The rows of the table."""
    names = ("seconds", "floor", "memory")
    return [
        [
            TITLES[axis],
            f"{points[0].at:,}–{points[-1].at:,}",
            f"{points[0].seconds:.2f}–{points[-1].seconds:.2f}",
            f"{points[0].memory:.0f}–{points[-1].memory:.0f}",
            *(f"{slope(points, name):.2f}" for name in names),
        ]
        for axis, points in found.items()
    ]


COLUMNS = ("axis", "from–to", "CPU s", "MiB", "power of time", "of the floor", "of memory")
GREY, OURS, FLOOR = "#858585", "#3d85d8", "#d9822b"


def draw(found: dict[str, list[Point]], path: Path) -> None:
    """The chart; its colours can be read on white and on black."""
    import matplotlib
    from matplotlib.figure import Figure

    grey = dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), GREY
    )
    settings: dict[str, Any] = {**grey, "svg.fonttype": "none", "svg.hashsalt": "curves", "font.size": 9}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(2.4 * len(found), 4.6), layout="constrained")
        grid = figure.subplots(2, len(found), squeeze=False)
        for column, (axis, points) in enumerate(found.items()):
            x = [p.at for p in points]
            time, memory = grid[0][column], grid[1][column]
            time.plot(x, [p.seconds for p in points], color=OURS, marker="o", markersize=4, label="a step")
            time.plot(
                x, [p.floor for p in points], color=FLOOR, linestyle="--", label="its matrix products alone"
            )
            memory.plot(x, [p.memory for p in points], color=OURS, marker="o", markersize=4)
            memory.set_xlabel(TITLES[axis])
            for panel in (time, memory):
                panel.set_ylim(bottom=0)
                panel.patch.set_alpha(0)
                panel.grid(alpha=0.25)
                panel.spines[["top", "right"]].set_visible(False)
        grid[0][0].set_ylabel("CPU seconds")
        grid[1][0].set_ylabel("MiB above weights and gradients")
        grid[0][0].legend(frameon=False, fontsize=8)
        figure.savefig(path, transparent=True, metadata={"Date": None})


def main(arguments: list[str] | None = None) -> None:
    """Print the table and draw the chart."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks curves", description=__doc__)
    parser.add_argument("--chart", type=Path, default=Path("docs/curves.svg"), help="The chart (SVG).")
    parser.add_argument("--repeats", type=int, default=3, help="Steps per point; the median is shown.")
    parser.add_argument("--tiny", action="store_true", help="Two small points per axis: shows that it runs.")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    base, axes, width = Step(), AXES, 256
    if asked.tiny:
        base, width = Step(8, 4, 2, 256, 1), 32
        axes = {axis: (getattr(base, axis), 2 * getattr(base, axis)) for axis in AXES}
    rate = matrix_rate()
    found = {
        axis: [measured(replace(base, **{axis: at}), at, rate, asked.repeats, width) for at in values]
        for axis, values in axes.items()
    }
    draw(found, asked.chart)
    print(table(COLUMNS, rows_of(found)))
    print(
        f"\nOtherwise {base}; a Llama of 2 layers of width {width}; matrix products at {rate / 1e9:.0f} GFLOP per CPU second."
    )
