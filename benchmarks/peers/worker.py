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

from .cases import Case, from_json

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

LIMITS = {
    "max_length": 2_048,
    "max_prompt_length": None,
    "completion_only_loss": True,
}
"""Arguments for the configs that have them: nothing is cut."""


@dataclass
class Job:
    """A case whose models and rows lie in `folder`."""

    case: Case
    folder: Path
    out: Path

    def rows(self) -> list[dict[str, Any]]:
        return json.loads((self.folder / "rows.json").read_text())

    def data(self) -> list[dict[str, Any]]:
        """The rows as the method's trainers take them on either side."""
        if self.case.draws:
            return [{"input_ids": row["prompt"]} for row in self.rows()]
        if self.case.groups:
            return [{"prompt": words(row["prompt"])} for row in self.rows()]
        rows = [{name: words(row[name]) for name in ("prompt", *self.case.answers)} for row in self.rows()]
        return [self._row(row, number) for number, row in enumerate(rows)]

    def _row(self, row: dict[str, str], number: int) -> dict[str, Any]:
        """A row of words (`build.tokenizer_of` gives their ids back) with the columns of the method."""
        prompt, end = row.pop("prompt") + " ", " </s>" * (self.case.method == "reward")
        if self.case.method == "kto":
            return {"prompt": prompt, "completion": row["chosen"], "label": number % 2 == 0}
        if self.case.method == "sft":
            return {"prompt": prompt, "completion": row["chosen"]}
        return {"prompt": prompt, **{name: text + end for name, text in row.items()}}

    def config(self, cls: Any, **more: Any) -> Any:
        """A config that says what one step is; of the limits of length those that it has, and rows in order."""
        wanted = (
            LIMITS
            if self.case.draws or self.case.groups
            else {**LIMITS, "train_sampling_strategy": "sequential"}
        )
        known = {name: value for name, value in wanted.items() if name in cls.__dataclass_fields__}
        return cls(**{**known, **self.arguments(), **more})

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
        if case.draws:
            return {**found, **self._rollout()}
        found["max_steps"] = case.warm + case.steps
        if case.groups:
            found |= {"shuffle_dataset": False, "num_generations": case.samples, "beta": 0.04}
            # The peer's default has changed since 0.26: the same value, another gradient.
            own = {"use_bias_correction_kl": False} if case.method == "grpo" else {}
            return {**found, **own, "max_completion_length": case.response}
        if case.beta is not None:
            found["beta"] = case.beta
        if case.packed:  # a pass over the data, however many rows packing makes of it, is one step
            found |= {"packing": True, "max_length": case.packed, "gradient_accumulation_steps": 10_000}
        return found

    def _rollout(self) -> dict[str, Any]:
        case = self.case
        return {
            "num_ppo_epochs": case.epochs,
            "total_episodes": case.rows * (case.warm + case.steps),
            "local_rollout_forward_batch_size": case.rows,
            "response_length": case.response,
            "stop_token": "eos",
            "temperature": 1.0,
            "num_sample_generations": 0,
        }

    def adapter(self) -> Any:
        """The configuration of the adapter, where the case has one."""
        if not self.case.lora:
            return None
        from peft import LoraConfig

        return LoraConfig(
            r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        )

    def load(self, cls: Any, name: str, **kwargs: Any) -> Any:
        """A model whose weights are in memory, not mapped from its file."""
        model = cls.from_pretrained(self.folder / name, dtype=torch.float32, **kwargs)
        for p in model.parameters():
            p.data = p.data.clone()
        return model

    def counts(self) -> dict[str, float]:
        """Of one step, where the rows say it: tokens (a prompt once per row, pair or group, and end tokens), those of them
        that are trained, and texts."""
        passes = self.case.warm if self.case.passes > 1 else 0
        rows = self.rows()[passes * self.case.rows // self.case.samples :]
        steps = self.case.steps if self.case.passes > 1 else 1
        if self.case.groups:
            answers = [len(answer) for row in rows for answer in row["answers"]]
        else:
            answers = [len(row[name]) + 1 for row in rows for name in self.case.answers]
        tokens = sum(answers) + sum(len(row["prompt"]) for row in rows)
        return {"tokens": tokens / steps, "trained": sum(answers) / steps, "texts": len(answers) / steps}


def words(ids: Sequence[int]) -> str:
    """Token ids as the words that `build.tokenizer_of` makes them of."""
    return " ".join(f"w{i}" for i in ids)


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
    """CPU seconds of this process after each optimizer step, and what was logged."""

    marks: list[float] = field(default_factory=list)
    logs: list[dict[str, float]] = field(default_factory=list)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.marks.append(time.process_time())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.logs.append({k: v for k, v in (logs or {}).items() if isinstance(v, int | float)})

    def of(self, name: str) -> list[float]:
        """What was logged under `name`, step by step."""
        return [float(logs[name]) for logs in self.logs if name in logs]

    def phases(self, warm: int) -> dict[str, float]:
        """CPU seconds of each phase of a run with `profile=True`, all of its steps but the first `warm` added up."""
        total = Counter[str]()
        for logs in [logs for logs in self.logs if "loss" in logs][warm:]:
            total.update({k.rpartition("/")[2]: v for k, v in logs.items() if k.startswith("profile/cpu/")})
        return dict(total)


@dataclass
class Built:
    """A trainer ready to train, how many clock marks make one step, and `Job.counts`, read at the end."""

    trainer: Any
    marks_per_step: int
    counts: Callable[[], dict[str, float]]


def same_adapters(model: torch.nn.Module) -> None:
    """Give adapters the weights that the other side's have, whatever drew them: as many, in the same order."""
    draw = torch.Generator().manual_seed(0)
    for name, p in model.named_parameters():
        if "lora_A" in name:
            p.data = torch.randn(p.shape, generator=draw) / p.shape[1] ** 0.5


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
    if job.case.lora:
        same_adapters(built.trainer.model)
    resident = settle()
    start = time.process_time(), time.perf_counter()
    built.trainer.train()
    wall = time.perf_counter() - start[1]
    ends = [start[0], *clock.marks[built.marks_per_step - 1 :: built.marks_per_step]]
    seconds = [b - a for a, b in zip(ends, ends[1:], strict=False)][job.case.warm :]
    return {
        "seconds": sorted(seconds)[len(seconds) // 2],
        "steps": seconds,
        "wall": wall,
        "memory": memory("VmHWM") - resident,
        "resident": resident,
        "losses": clock.of("loss"),
        "norms": clock.of("grad_norm"),
        "profile": clock.phases(job.case.warm * built.marks_per_step),
        **built.counts(),
    }


def main(build: Callable[[Job, Clock], Built], *packages: Any) -> None:
    """`python -m … CASE.json FOLDER RESULT.json`: a tiny run first, so that nothing is met for the first time while measured."""
    torch.set_num_threads(1)
    asked, folder, result = (Path(a) for a in sys.argv[1:4])
    case = from_json(json.loads(asked.read_text()))
    train(Job(case.tiny(), folder / "tiny", result.parent / "trained"), build)
    found = train(Job(case, folder / "full", result.parent / "trained"), build)
    versions = {p.__name__: p.__version__ for p in (torch, transformers, *packages)}
    versions["python"] = platform.python_version()
    result.write_text(json.dumps({**found, "versions": versions, "rate": matrix_rate()}))
