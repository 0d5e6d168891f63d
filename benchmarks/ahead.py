"""`python -m benchmarks ahead [--pairs N]`: GRPO whose rollouts are sampled in another process, in turn and one ahead.

`in turn` and `ahead` do the same work on two processes of one thread each (`ahead` scores each rollout once more); only when
is different. `alone` (with --alone) is one process with two threads. Seconds are the clock's, from the end of the first
optimizer step to the end of the last, so that starting processes does not count. Sampling and training should take alike
here: the share is shown. A machine that does other things meanwhile has no two cores to give, and the ratios show that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast, TrainerCallback
from transformers.models.llama import LlamaForCausalLM

from trellis import GRPOConfig, GRPOTrainer

WORDS = [f"w{i}" for i in range(1000)]
SIDES = {
    "alone": (2, {}),
    "in turn": (1, {"rollout_devices": ["cpu"]}),
    "ahead": (1, {"rollout_staleness": 1}),
}
"""Threads of each process, and what the config says."""


def tokenizer() -> PreTrainedTokenizerFast:
    """A token per word."""
    names = ["<pad>", "</s>", *WORDS]
    backend = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>")


def model() -> LlamaForCausalLM:
    """A random model, the same every time."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(WORDS) + 2,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=256,
        eos_token_id=1,
        pad_token_id=0,
    )
    return LlamaForCausalLM(shape)


def even(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """The share of even tokens."""
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


class Marks(TrainerCallback):
    """The clock at the end of each optimizer step."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at.append(time.perf_counter())


def run(side: str, rollouts: int, rows: int, length: int) -> tuple[float, dict[str, float]]:
    """(seconds per rollout, the share of each phase of the clock's time in this process) of one run."""
    marks, (threads, where) = Marks(), SIDES[side]
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        args = GRPOConfig(
            folder, use_cpu=True, disable_tqdm=True, save_strategy="no", logging_strategy="no", profile=False,
            max_steps=rollouts, per_device_train_batch_size=rows, num_generations=8, num_iterations=1,
            max_completion_length=length, learning_rate=1e-4, **where,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=model(), reward_funcs=even, args=args, callbacks=[marks], processing_class=tokenizer(),
            train_dataset=[" ".join(WORDS[i : i + 8]) for i in range(64)],
        )  # fmt: skip
        spent = phases(trainer)
        trainer.train()
    whole = marks.at[-1] - marks.at[0]
    return whole / (rollouts - 1), {name: seconds / sum(spent.values()) for name, seconds in spent.items()}


def phases(trainer: Any) -> dict[str, float]:
    """Seconds by phase, filled while `trainer` trains, from its second optimizer step on."""
    spent: dict[str, float] = {}
    now = ["starting", time.perf_counter()]

    def heard(phase: str) -> None:
        if trainer.state.global_step > 0:
            spent[now[0]] = spent.get(now[0], 0.0) + time.perf_counter() - now[1]
        now[:] = [phase, time.perf_counter()]

    trainer.watchdog.heard = heard
    return spent


def main(arguments: list[str]) -> None:
    """Alternating runs, one line per pair, and their median."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks ahead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=int, default=3, help="Alternating runs of each side.")
    parser.add_argument("--rollouts", type=int, default=10, help="Rollouts per run, one optimizer step each.")
    parser.add_argument("--rows", type=int, default=32, help="Completions per rollout.")
    parser.add_argument("--length", type=int, default=48, help="Longest completion in tokens.")
    parser.add_argument("--alone", action="store_true", help="Also one process with two threads.")
    asked = parser.parse_args(arguments)
    sides = [side for side in SIDES if side != "alone" or asked.alone]
    print(
        f"{os.cpu_count()} cores, {os.getloadavg()[0]:.1f} runnable; torch {torch.__version__}; seconds per rollout"
    )
    ratios: dict[str, list[float]] = {side: [] for side in sides if side != "ahead"}
    for _ in range(asked.pairs):
        found = {side: run(side, asked.rollouts, asked.rows, asked.length) for side in sides}
        for side, values in ratios.items():
            values.append(found[side][0] / found["ahead"][0])
        share = found["in turn"][1].get("sampling", 0.0)
        times = ", ".join(f"{side} {seconds:.3f}" for side, (seconds, _) in found.items())
        print(f"{times}; sampling is {share:.0%} of in turn", flush=True)
    for side, values in ratios.items():
        print(f"ahead is {statistics.median(values):.2f} times as fast as {side} (median)")
