"""What both sides of a comparison do in their own process: train, look at the clock after each step, write down what they saw."""

from __future__ import annotations

import ctypes
import gc
import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback

from .cases import Case

COMMON: dict[str, Any] = {
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "optim": "adamw_torch_fused",
    "disable_tqdm": True,
    "seed": 0,
}
"""Arguments that both sides' configs take."""


@dataclass
class Job:
    """A case whose models and rows lie in `folder`."""

    case: Case
    folder: Path
    out: Path

    def rows(self) -> list[dict[str, Any]]:
        return json.loads((self.folder / "rows.json").read_text())

    def texts(self) -> list[dict[str, str]]:
        """The rows as words (`build.tokenizer_of` gives their ids back)."""
        return [{k: " ".join(f"w{i}" for i in ids) for k, ids in row.items()} for row in self.rows()]

    def data(self) -> list[dict[str, Any]]:
        """The rows as the method's trainers take them on either side."""
        if self.case.method == "ppo":
            return [{"input_ids": row["prompt"]} for row in self.rows()]
        if self.case.groups:
            return [{"prompt": " ".join(f"w{i}" for i in row["prompt"])} for row in self.rows()]
        if self.case.method == "sft":
            return [{"prompt": row["prompt"] + " ", "completion": row["chosen"]} for row in self.texts()]
        return [
            {
                "prompt": row["prompt"] + " ",
                "chosen": row["chosen"] + " </s>" * (self.case.method == "reward"),
                "rejected": row["rejected"] + " </s>" * (self.case.method == "reward"),
            }
            for row in self.texts()
        ]

    def arguments(self) -> dict[str, Any]:
        """Arguments of a config that say what one step is."""
        case = self.case
        found = {
            **COMMON,
            "output_dir": str(self.out),
            "learning_rate": case.learning_rate,
            "per_device_train_batch_size": case.micro_rows,
            "gradient_accumulation_steps": case.rows // case.micro_rows,
        }
        if case.groups:
            return {
                **found,
                "max_steps": case.warm + case.steps,
                "shuffle_dataset": False,
                "num_generations": case.samples,
                "max_completion_length": case.response,
                "beta": 0.04,
            }
        if not case.draws:
            return {**found, "max_steps": case.warm + case.steps, "train_sampling_strategy": "sequential"}
        return {
            **found,
            "num_ppo_epochs": case.epochs,
            "total_episodes": case.rows * (case.warm + case.steps),
            "local_rollout_forward_batch_size": case.rows,
            "response_length": case.response,
            "stop_token": "eos",
            "temperature": 1.0,
            "num_sample_generations": 0,
        }

    def load(self, cls: Any, name: str, **kwargs: Any) -> Any:
        """A model whose weights are in memory, not mapped from its file."""
        model = cls.from_pretrained(self.folder / name, dtype=torch.float32, **kwargs)
        for p in model.parameters():
            p.data = p.data.clone()
        return model

    def tokens(self) -> tuple[float, float]:
        """Useful and trained tokens of one step, where the rows say it: a prompt once per row or pair, and end tokens."""
        rows = self.rows()[self.case.warm * self.case.rows // self.case.samples :]
        if self.case.groups:
            trained = sum(len(answer) for row in rows for answer in row["answers"])
            return (
                trained + sum(len(row["prompt"]) for row in rows)
            ) / self.case.steps, trained / self.case.steps
        answers = ("chosen",) if self.case.method == "sft" else ("chosen", "rejected")
        trained = sum(len(row[name]) + 1 for row in rows for name in answers)
        return (
            trained + sum(len(row["prompt"]) for row in rows)
        ) / self.case.steps, trained / self.case.steps


@dataclass
class Answers:
    """What is trained on in place of what was sampled: for each prompt its answers, in the order of its samples."""

    table: dict[tuple[int, ...], list[list[int]]]

    @classmethod
    def of(cls, job: Job) -> Answers:
        """Those of the job's rows."""
        return cls({tuple(row["prompt"]): row["answers"] for row in job.rows()})

    def to(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """An answer for each prompt; prompts are repeated, one for each sample."""
        met: Counter[tuple[int, ...]] = Counter()
        found = []
        for prompt in map(tuple, prompts):
            found.append(self.table[prompt][met[prompt]])
            met[prompt] += 1
        return found


def even(completion_ids: Sequence[Sequence[int]], **kwargs: Any) -> list[float]:
    """A reward: the share of even token ids."""
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


@dataclass
class Clock(TrainerCallback):
    """CPU seconds of this process after each optimizer step, and the losses logged."""

    marks: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.marks.append(time.process_time())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


@dataclass
class Built:
    """A trainer ready to train, how many clock marks make one step, and (useful, trained) tokens per step, read at the end."""

    trainer: Any
    marks_per_step: int
    tokens: Callable[[], tuple[float, float]]


def memory(name: str) -> float:
    """MiB of `VmRSS` (now) or `VmHWM` (the most so far)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise ValueError(f"this system does not tell {name}")


def settle() -> float:
    """Give free memory back, forget the peak, and return what is resident, in MiB."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def matrix_rate() -> float:
    """Floating-point operations per CPU second of one float32 matrix product of the sizes in question."""
    a, b = torch.randn(1_024, 512), torch.randn(512, 2_048)
    rates = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(10):
            a @ b
        rates.append(10 * 2 * 1_024 * 512 * 2_048 / (time.process_time() - start))
    return sorted(rates)[2]


def train(job: Job, build: Callable[[Job, Clock], Built]) -> dict[str, Any]:
    """Train once and say what one step took."""
    clock = Clock()
    built = build(job, clock)
    resident = settle()
    start = time.process_time()
    built.trainer.train()
    ends = [start, *clock.marks[built.marks_per_step - 1 :: built.marks_per_step]]
    seconds = [b - a for a, b in zip(ends, ends[1:], strict=False)][job.case.warm :]
    useful, trained = built.tokens()
    return {
        "seconds": sorted(seconds)[len(seconds) // 2],
        "steps": seconds,
        "memory": memory("VmHWM") - resident,
        "resident": resident,
        "losses": clock.losses,
        "tokens": useful,
        "trained": trained,
    }


def main(build: Callable[[Job, Clock], Built], *packages: Any) -> None:
    """`python -m … CASE.json FOLDER RESULT.json`: a tiny run first, so that nothing is met for the first time while measured."""
    torch.set_num_threads(1)
    asked, folder, result = (Path(a) for a in sys.argv[1:4])
    case = Case(**json.loads(asked.read_text()))
    train(Job(case.tiny(), folder / "tiny", result.parent / "trained"), build)
    found = train(Job(case, folder / "full", result.parent / "trained"), build)
    versions = {p.__name__: p.__version__ for p in (torch, transformers, *packages)}
    versions["python"] = platform.python_version()
    result.write_text(json.dumps({**found, "versions": versions, "rate": matrix_rate()}))
