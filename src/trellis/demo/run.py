"""The demo from start to end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ..monitor import draw_curves, read_history, show
from . import data as demo_data
from .judge import accuracy, train_judge
from .measure import Measure, measure
from .stages import REWARDS, train_ppo, train_reward, train_sft

CURVES = (
    "objective/scores",
    "objective/rlhf_reward",
    "objective/kl",
    "objective/entropy",
    "policy/approxkl_avg",
    "policy/clipfrac_avg",
    "loss/policy_avg",
    "loss/value_avg",
)


@dataclass(frozen=True)
class DemoResult:
    """What came out. before, after: the SFT and the PPO policy on held-out prompts; held_out_loss: SFT's, nats per token;
    pair_accuracy: the reward model's on held-out pairs; judge_accuracy: the judge's on held-out phrases; seconds: in all."""

    output: Path
    before: Measure
    after: Measure
    held_out_loss: float
    pair_accuracy: float
    judge_accuracy: float
    seconds: float


@contextmanager
def _one_thread() -> Iterator[None]:
    # Matrices this small only wait for a second thread.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run_demo(
    output: str | Path,
    *,
    seed: int = 0,
    updates: int = 60,
    reward: str = "model",
    epochs: float = 3,
    start: str | Path | None = None,
    quiet: bool = False,
) -> DemoResult:
    """Train and measure; leaves `sft/`, `reward/`, `ppo/` and `curves.png` in `output`.

    `reward`: "model", or a control: "flipped" (its negative) or "random". `start`: an earlier run's output, whose sft/ and
    reward/ are used instead of training new ones. Raises ValueError for an unknown reward or fewer than one update.
    """
    if reward not in REWARDS:
        raise ValueError(f"reward={reward!r} is none of {', '.join(REWARDS)}")
    if updates < 1:
        raise ValueError(f"updates must be at least 1, found {updates}")
    began, output = time.perf_counter(), Path(output)
    rows = demo_data.load()
    with _one_thread():
        sft, scorer = Path(start or output) / "sft", Path(start or output) / "reward"
        loss = accuracy_of_pairs = float("nan")
        if start is None:
            loss = train_sft(sft, rows, seed=seed, epochs=epochs, quiet=quiet)
            accuracy_of_pairs = train_reward(scorer, sft, rows, seed=seed, quiet=quiet)
        judge = train_judge(rows.judge, seed=seed)
        before = measure(sft, sft, scorer, judge, rows.prompts_test)
        train_ppo(output / "ppo", sft, scorer, rows, seed=seed, updates=updates, kind=reward, quiet=quiet)
        after = measure(output / "ppo", sft, scorer, judge, rows.prompts_test)
    result = DemoResult(
        output=output,
        before=before,
        after=after,
        held_out_loss=loss,
        pair_accuracy=accuracy_of_pairs,
        judge_accuracy=accuracy(judge, rows.judge_test),
        seconds=time.perf_counter() - began,
    )
    draw_curves(read_history(output / "ppo"), output / "curves.png", names=CURVES, title="PPO")
    if not quiet:
        report(result)
    return result


def report(result: DemoResult) -> None:
    """Print the samples and the figures."""
    for name, found in (("before PPO", result.before), ("after PPO", result.after)):
        show(found.rows[:8], f"\nSamples {name}")
    table = [
        {
            "policy": name,
            "score": m.score,
            "judge says praise": f"{m.judge:.0%}",
            "KL to SFT": m.kl,
            "distinct word pairs": f"{m.distinct:.0%}",
            "stops by itself": f"{m.stopped:.0%}",
        }
        for name, m in (("sft", result.before), ("ppo", result.after))
    ]
    show(table, f"\n{len(result.after.rows)} held-out prompts, sampled at temperature 1")
    print(
        f"\nSFT: held-out loss {result.held_out_loss:.2f} nats per token. Reward model: right on "
        f"{result.pair_accuracy:.1%} of held-out pairs.\nThe judge, trained on phrases that nothing else has seen, is right on "
        f"{result.judge_accuracy:.1%} of held-out ones.\n{result.seconds:.0f} seconds. Models in {result.output}/sft, "
        f"{result.output}/reward and {result.output}/ppo; curves in {result.output}/curves.png"
    )
