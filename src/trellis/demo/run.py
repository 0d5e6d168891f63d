"""The demo from start to end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as hf_logging

from ..monitor import draw_curves, read_history, show
from . import data as demo_data
from .judge import accuracy, train_judge
from .measure import Measure, measure
from .stages import REWARDS, train_ppo, train_reward, train_sft

RESULT = "result.json"
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
    """What came out. output: where; start: where sft/ and reward/ lie; before, after: the SFT and the PPO policy on held-out
    prompts; held_out_loss: SFT's, nats per token; pair_accuracy: the reward model's on held-out pairs; judge_accuracy: the
    judge's on held-out phrases; seconds: in all."""

    output: Path
    start: Path
    before: Measure
    after: Measure
    held_out_loss: float
    pair_accuracy: float
    judge_accuracy: float
    seconds: float

    def figures(self) -> dict[str, Any]:
        """Everything but the samples, as plain numbers."""
        plain = asdict(self) | {"output": str(self.output), "start": str(self.start)}
        for name in ("before", "after"):
            plain[name] = {k: v for k, v in plain[name].items() if k != "rows"}
        return plain


@contextmanager
def _quiet_machine() -> Iterator[None]:
    """One thread (matrices this small only wait for a second one) and no bars for loading and saving."""
    threads, bars = torch.get_num_threads(), hf_logging.is_progress_bar_enabled()
    torch.set_num_threads(1)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if bars:
            hf_logging.enable_progress_bar()


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
    """Train and measure; leaves `sft/`, `reward/`, `ppo/`, `curves.png` and `result.json` in `output`.

    `reward`: "model", or a control: "flipped" (its negative) or "random". `epochs`: of SFT; the reward model takes two thirds of
    them. `start`: an earlier run's output, whose sft/ and reward/ are used instead of training new ones. Raises ValueError for an
    unknown reward, fewer than one update, or a start that holds no demo.
    """
    began, output = time.perf_counter(), Path(output)
    home = check_request(output, start, reward, updates)
    rows = demo_data.load()
    with _quiet_machine():
        sft, scorer = home / "sft", home / "reward"
        if start is None:
            loss = train_sft(sft, rows, seed=seed, epochs=epochs, quiet=quiet)
            pairs = train_reward(scorer, sft, rows, seed=seed, epochs=epochs * 2 / 3, quiet=quiet)
        else:
            earlier = json.loads((home / RESULT).read_text())
            loss, pairs = earlier["held_out_loss"], earlier["pair_accuracy"]
        judge = train_judge(rows.judge, seed=seed)
        before = measure(sft, sft, scorer, judge, rows.prompts_test)
        train_ppo(output / "ppo", sft, scorer, rows, seed=seed, updates=updates, kind=reward, quiet=quiet)
        after = measure(output / "ppo", sft, scorer, judge, rows.prompts_test)
    result = DemoResult(
        output=output,
        start=home,
        before=before,
        after=after,
        held_out_loss=loss,
        pair_accuracy=pairs,
        judge_accuracy=accuracy(judge, rows.judge_test),
        seconds=time.perf_counter() - began,
    )
    draw_curves(read_history(output / "ppo"), output / "curves.png", names=CURVES, title="PPO")
    (output / RESULT).write_text(json.dumps(result.figures(), indent=1) + "\n")
    if not quiet:
        report(result)
    return result


def check_request(output: str | Path, start: str | Path | None, reward: str, updates: int) -> Path:
    """Where sft/ and reward/ lie or will lie. Raises ValueError for what cannot be run."""
    if reward not in REWARDS:
        raise ValueError(f"reward={reward!r} is none of {', '.join(REWARDS)}")
    if updates < 1:
        raise ValueError(f"updates must be at least 1, found {updates}")
    if start is not None and not (Path(start) / RESULT).is_file():
        raise ValueError(f"start={str(start)!r} holds no {RESULT} of an earlier demo")
    return Path(output if start is None else start)


def report(result: DemoResult) -> None:
    """Print the samples and the figures."""
    for name, found in (("before PPO", result.before), ("after PPO", result.after)):
        show(found.rows[:8], f"\nSamples {name}")
    table = [
        {
            "policy": name,
            "score": m.score,
            "praise": f"{m.judge:.0%}",
            "KL": m.kl,
            "distinct": f"{m.distinct:.0%}",
            "stops": f"{m.stopped:.0%}",
        }
        for name, m in (("sft", result.before), ("ppo", result.after))
    ]
    show(table, f"\n{len(result.after.rows)} held-out prompts, sampled at temperature 1")
    print(
        "praise: share that the judge calls praise; KL: to the SFT policy, per phrase; distinct: distinct word pairs over all;\n"
        "stops: share that ends by itself within 14 tokens.\n\n"
        f"SFT: held-out loss {result.held_out_loss:.2f} nats per token. Reward model: right on {result.pair_accuracy:.1%} "
        "of held-out pairs.\nThe judge, trained on phrases that nothing else has seen, is right on "
        f"{result.judge_accuracy:.1%} of held-out ones.\n\n{result.seconds:.0f} seconds. Models: {result.start}/sft, "
        f"{result.start}/reward, {result.output}/ppo. Curves: {result.output}/curves.png"
    )
