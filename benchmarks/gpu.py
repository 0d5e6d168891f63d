"""`python -m benchmarks gpu [METHOD…]`: our trainers on an accelerator, in bfloat16, on a random Llama of half or one and a half
billion parameters: tokens per second, the allocator's peak, and the share of the rate of one large bfloat16 product.

It needs no data set library: rows are lists. `--tiny` shows on any machine that it runs.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PrinterCallback,
    TrainerCallback,
)

import trellis

from .peers.build import EOS, FIRST, PAD, end_after, length, tokenizer_of
from .peers.cases import Case, floor_flops
from .peers.page import table
from .peers.worker import even, words

SIZES = {
    "0.5b": {"vocab_size": 151_936, "width": 896, "inner": 4_864, "layers": 24, "heads": 14, "keys": 2},
    "1.5b": {"vocab_size": 151_936, "width": 1_536, "inner": 8_960, "layers": 28, "heads": 12, "keys": 2},
    "tiny": {"vocab_size": 512, "width": 32, "inner": 64, "layers": 2, "heads": 2, "keys": 1},
}
LENGTHS: dict[str, Any] = {"prompt": (150, 400, 1_000), "response": 512, "stop_after": 256}
CASES = {
    "sft": Case("sft", "sft", "", "", 32, 8, **LENGTHS),
    "dpo": Case("dpo", "dpo", "", "", 16, 8, **LENGTHS),
    "grpo": Case("grpo", "grpo", "", "", 64, 32, samples=8, **LENGTHS),
    "ppo": Case("ppo", "ppo", "", "", 64, 16, **LENGTHS),
}


@dataclass
class Bench:
    """One method on one model."""

    case: Case
    shape: dict[str, int]
    steps: int
    warm: int
    folder: str
    tokenizer: Any

    def config(self) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=self.shape["vocab_size"],
            hidden_size=self.shape["width"],
            intermediate_size=self.shape["inner"],
            num_hidden_layers=self.shape["layers"],
            num_attention_heads=self.shape["heads"],
            num_key_value_heads=self.shape["keys"],
            max_position_embeddings=4_096,
            pad_token_id=PAD,
            eos_token_id=EOS,
            bos_token_id=None,
            tie_word_embeddings=False,
            num_labels=1,
        )

    def rows(self) -> list[dict[str, list[int]]]:
        """Prompts and answers for all steps."""
        draw, case = random.Random(0), self.case

        def ids(count: int) -> list[int]:
            return [draw.randrange(FIRST, self.shape["vocab_size"]) for _ in range(count)]

        def answer() -> list[int]:
            return ids(min(case.response - 1, 3 + round(draw.expovariate(1 / case.stop_after))))

        count = case.rows // case.samples * (self.steps + self.warm)
        return [
            {"prompt": ids(length(draw, *case.prompt)), "chosen": answer(), "rejected": answer()}
            for _ in range(count)
        ]

    def common(self) -> dict[str, Any]:
        """Arguments of the config that every method has."""
        return {
            "output_dir": self.folder,
            "per_device_train_batch_size": self.case.micro_rows,
            "gradient_accumulation_steps": self.case.rows // self.case.micro_rows,
            "learning_rate": 1e-6,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": not torch.accelerator.is_available(),
        }

    def trainer(self, clock: Clock) -> Any:
        """The trainer, ready."""
        policy = LlamaForCausalLM(self.config())
        end_after(policy, self.case.stop_after)
        shared = {"model": policy, "processing_class": self.tokenizer, "callbacks": [clock]}
        return BUILDERS[self.case.method](self, shared)

    def texts(self, **columns: str) -> list[dict[str, str]]:
        """The rows as words, under other names."""
        return [
            {new: words(row[old]) + " " * (old == "prompt") for new, old in columns.items()}
            for row in self.rows()
        ]

    def counts(self) -> dict[str, float]:
        """Of one step of given rows."""
        rows, answers = self.rows(), self.case.answers
        trained = sum(len(row[a]) + 1 for row in rows for a in answers)
        tokens = trained + sum(len(row["prompt"]) for row in rows)
        steps = self.steps + self.warm
        return {"tokens": tokens / steps, "trained": trained / steps, "texts": self.case.rows * len(answers)}


def _sft(bench: Bench, shared: dict[str, Any]) -> Any:
    args = trellis.SFTConfig(**bench.common(), max_steps=bench.steps + bench.warm, max_length=2_048)
    return trellis.SFTTrainer(
        args=args, train_dataset=bench.texts(prompt="prompt", completion="chosen"), **shared
    )


def _dpo(bench: Bench, shared: dict[str, Any]) -> Any:
    limits: dict[str, Any] = {"max_length": 2_048, "max_prompt_length": None}
    args = trellis.DPOConfig(**bench.common(), max_steps=bench.steps + bench.warm, **limits)
    rows = bench.texts(prompt="prompt", chosen="chosen", rejected="rejected")
    return trellis.DPOTrainer(args=args, train_dataset=rows, **shared)


def _grpo(bench: Bench, shared: dict[str, Any]) -> Any:
    case = bench.case
    args = trellis.GRPOConfig(
        **bench.common(),
        max_steps=bench.steps + bench.warm,
        num_generations=case.samples,
        max_completion_length=case.response,
        beta=0.04,
    )
    rows = bench.texts(prompt="prompt")
    return trellis.GRPOTrainer(args=args, reward_funcs=even, train_dataset=rows, **shared)


def _ppo(bench: Bench, shared: dict[str, Any]) -> Any:
    args = trellis.PPOConfig(
        **bench.common(),
        num_ppo_epochs=1,
        total_episodes=bench.case.rows * (bench.steps + bench.warm),
        response_length=bench.case.response,
        stop_token="eos",
        num_sample_generations=0,
    )
    judges = {
        name: LlamaForSequenceClassification(bench.config()) for name in ("reward_model", "value_model")
    }
    rows = [{"input_ids": row["prompt"]} for row in bench.rows()]
    return trellis.PPOTrainer(args=args, train_dataset=rows, **judges, **shared)


BUILDERS: dict[str, Callable[[Bench, dict[str, Any]], Any]] = {
    "sft": _sft,
    "dpo": _dpo,
    "grpo": _grpo,
    "ppo": _ppo,
}


@dataclass
class Clock(TrainerCallback):
    """Wall seconds at the end of each optimizer step, and what was sampled for it."""

    marks: list[float] = field(default_factory=list)
    counts: list[dict[str, float]] = field(default_factory=list)
    rollout: Callable[[], Any] = lambda: None

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        self.marks.append(time.perf_counter())
        if (rollout := self.rollout()) is not None:
            tokens, trained = float(rollout.attention_mask.sum()), float(rollout.loss_mask.sum())
            again = sum(
                {int(g): int(n) for g, n in zip(rollout.group, rollout.prompt_len, strict=True)}.values()
            )
            tokens += again - float(rollout.prompt_len.sum())  # a prompt once per group
            self.counts.append({"tokens": tokens, "trained": trained, "texts": float(len(rollout.loss_mask))})


def peak_rate(size: int = 8_192, dtype: torch.dtype = torch.bfloat16) -> float:
    """Floating-point operations per second of one large product, the best of ten."""
    on = torch.accelerator.is_available()
    a = torch.randn(size, size, device=torch.accelerator.current_accelerator() if on else "cpu", dtype=dtype)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        a @ a
        if on:
            torch.accelerator.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def facts_of(model: LlamaForCausalLM) -> dict[str, float]:
    """What `floor_flops` asks of a model."""
    layers = model.model.layers
    body = sum(p.numel() for p in layers.parameters() if p.dim() == 2)
    kept = sum(m.weight.numel() for m in (layers[-1].self_attn.k_proj, layers[-1].self_attn.v_proj))
    return {"body": body, "last": body / len(layers) - kept, "head": model.lm_head.weight.numel()}


def run(bench: Bench, rate: float) -> list[str]:
    """Train, and say a row of the table."""
    gc.collect()
    on = torch.cuda.is_available()
    if on:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    clock = Clock()
    trainer = bench.trainer(clock)
    facts = facts_of(trainer.model.policy if bench.case.draws else trainer.model)
    if bench.case.draws or bench.case.groups:
        clock.rollout = lambda: trainer.rollout
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    between = [b - a for a, b in zip(clock.marks, clock.marks[1:], strict=False)][bench.warm - 1 :]
    seconds = statistics.median(between)
    counts = clock.counts[bench.warm :] or [bench.counts()]
    mean = {name: statistics.mean(c[name] for c in counts) for name in counts[0]}
    share = floor_flops(bench.case, {**facts, **mean}) / rate / seconds
    peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if on else "–"
    return [bench.case.name, f"{seconds:.2f}", f"{mean['tokens'] / seconds:,.0f}", peak, f"{share:.1%}"]


COLUMNS = ("method", "s per step", "useful tokens/s", "peak GiB", "of the bf16 peak")


def main(arguments: list[str] | None = None) -> None:
    """Print the table, each row as soon as it is known."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"Of {', '.join(CASES)}; default: all.")
    parser.add_argument(
        "--size", choices=[s for s in SIZES if s != "tiny"], default="0.5b", help="Of the model."
    )
    parser.add_argument("--steps", type=int, default=5, help="Measured steps, after two that are not.")
    parser.add_argument("--tiny", action="store_true", help="A tiny model: shows that it runs, not how fast.")
    asked = parser.parse_args(arguments)
    if unknown := sorted(set(asked.methods) - set(CASES)):
        parser.error(f"no method is called {', '.join(unknown)}; there are {', '.join(CASES)}")
    if not asked.tiny and not torch.accelerator.is_available():
        parser.error("this machine has no accelerator; write --tiny to see that it runs")
    shape = SIZES["tiny" if asked.tiny else asked.size]
    rate = peak_rate(512, torch.float32) if asked.tiny else peak_rate()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(
        f"{device}, torch {torch.__version__}, large products at {rate / 1e12:.1f} TFLOP/s\n\n{table(COLUMNS, [])}",
        flush=True,
    )
    tokenizer = tokenizer_of(shape["vocab_size"])
    for name in asked.methods or CASES:
        case = CASES[name].tiny() if asked.tiny else CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(
                case, shape, 1 if asked.tiny else asked.steps, 1 if asked.tiny else 2, folder, tokenizer
            )
            print(f"| {' | '.join(run(bench, rate))} |", flush=True)
