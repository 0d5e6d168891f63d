"""The common base of configs: TrainingArguments with defaults that fit the machine; old names understood.

A config class says `@config class XConfig(TrellisConfig)`, its fields `name: type = option(default, "help")`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, TypeVar

import torch
from transformers import TrainingArguments
from transformers.utils import is_torch_bf16_gpu_available

from .fields import config, option, switch
from .memory_config import MemoryConfig
from .old_fields import HF_OLD_NAMES
from .old_names import Old, closest
from .unused import EVERYWHERE, refuse_unused
from .world import asked_precision, check_size, prepare

C = TypeVar("C", bound="TrellisConfig")
_announced: set[str] = set()


def check_choices(record: Any) -> None:
    """Raises ValueError when a field of `record` holds a value outside the `choices` of its option."""
    for f in fields(record):
        choices, value = f.metadata.get("choices"), getattr(record, f.name)
        if choices and value is not None and value not in choices:
            hint = closest(str(value), [str(c) for c in choices])
            raise ValueError(f"{f.name}={value!r} is none of {', '.join(map(str, choices))}{hint}")


@config
class TrellisConfig(MemoryConfig):
    """TrainingArguments with other defaults; None means: what suits this machine, decided on construction.

    Raises ValueError for what this machine cannot do and for a value outside its choices, TypeError for an
    unknown name.
    """

    renamed: ClassVar[Mapping[str, str | Old]] = HF_OLD_NAMES
    unused: ClassVar[Mapping[str, str]] = EVERYWHERE
    json_fields: ClassVar[frozenset[str]] = frozenset()

    output_dir: str | None = option(
        "trainer_output", "Where checkpoints, the final model and metrics.jsonl are written."
    )
    logging_steps: float = option(10, "Log every so many optimizer steps; below 1, a share of all steps.")
    logging_nan_inf_filter: bool = option(
        False, "Hide non-finite losses from the log; off, so that they are seen."
    )
    report_to: None | str | list[str] = option("none", "Trackers to report to: none, all, or their names.")
    bf16: bool | None = switch(None, "Train in bfloat16; default: where the accelerator computes in it.")
    gradient_checkpointing: bool | None = switch(
        None,
        "Recompute activations in the backward pass; default: on with an accelerator, off on a CPU.",
    )
    dataloader_pin_memory: bool | None = switch(None, "Pin batches in memory; default: with an accelerator.")
    remove_unused_columns: bool | None = option(
        False, "Drop columns that model.forward does not take; collators need them."
    )
    ddp_find_unused_parameters: bool | None = option(
        False, "Let DDP search the graph for unused parameters on each step."
    )
    layout: str = option(
        "auto",
        "How rows are arranged for the forward pass: shared (a prompt once per group), packed (no padding) or padded; auto: "
        "the best of these that leaves the model's numbers as they are.",
        choices=("auto", "shared", "packed", "padded"),
    )
    micro_batch_tokens: int | None = option(
        None,
        "Take a micro-batch in parts of at most so many tokens (a shared prompt counts once): gradients stay, memory follows "
        "the longest part. One process; default: whole micro-batches, halved where memory does not suffice.",
    )
    float32_matmul_precision: str | None = option(
        None,
        "Products of float32 matrices: highest, high (TF32) or medium (bfloat16), faster where the hardware has it, and not "
        "exact; default: as torch is set.",
        choices=("highest", "high", "medium"),
    )

    on_bad_step: str = option(
        "stop",
        "A step whose loss or gradient is not finite is never taken. stop: end with a diagnosis; skip: leave the step out; "
        "rollback: leave it out and go back to the weights and optimizer of the last checkpoint.",
        choices=("stop", "skip", "rollback"),
    )
    max_bad_steps: int = option(10, "Stop a run with more bad steps than this.")
    on_save_error: str = option(
        "stop",
        "When a checkpoint cannot be written (a full disk): stop, or continue without it.",
        choices=("stop", "continue"),
    )
    save_on_signal: bool = option(
        True,
        "On SIGTERM or SIGINT finish the step, save and end with status 75; a second signal ends at once.",
    )
    health: bool = option(
        True,
        "Read the log by the rules of docs/health.md and say what is wrong, in the log and in health.jsonl.",
    )
    stop_on_health: list[str] | None = option(None, "Names of health rules at which the run stops.")
    roll_back_on_health: list[str] | None = option(
        None,
        "Names of health rules at which the run goes back to the weights and optimizer of its last checkpoint, and goes on; "
        "at most max_bad_steps times.",
    )
    live_view: bool | None = switch(
        None,
        "Show a run as a panel: curves, speed, samples, health; false: as transformers does. Default: a panel on a terminal, a "
        "line per log elsewhere.",
    )
    profile: bool = option(
        False,
        "Log what is computed and how much of it in vain, time per phase and peak memory (profile/*); a table at the end.",
    )
    hang_timeout: float | None = option(
        None, "Seconds without any progress after which step, rank, phase and all stacks are printed."
    )
    on_hang: str = option(
        "stop", "After hang_timeout: end the process with status 124, or warn only.", choices=("stop", "warn")
    )

    def __post_init__(self) -> None:
        self._read_json()
        self.report_to = "none" if self.report_to is None else self.report_to  # as transformers 5 writes it
        check_choices(self)
        self._check_faults()
        refuse_unused(self)
        prepare(self)
        self._choose_precision()
        self._choose_checkpointing()
        if self.dataloader_pin_memory is None:
            self.dataloader_pin_memory = self._accelerated
        super().__post_init__()
        check_size(self)
        if self.micro_batch_tokens is not None and self.world_size > 1:
            raise ValueError(
                f"micro_batch_tokens={self.micro_batch_tokens} with {self.world_size} processes: they would cut differently, and "
                "wait for each other; lower per_device_train_batch_size and raise gradient_accumulation_steps instead"
            )
        self._announce()

    @property
    def _accelerated(self) -> bool:
        return not self.use_cpu and torch.accelerator.is_available()

    def _read_json(self) -> None:
        for name in self.json_fields:
            value = getattr(self, name)
            if not (isinstance(value, str) and value.lstrip().startswith("{")):
                continue
            try:
                setattr(self, name, json.loads(value))
            except json.JSONDecodeError as error:
                raise ValueError(
                    f'{name} is not valid JSON ({error}); write it like {{"key": 1}}, found {value}'
                ) from error

    def _check_faults(self) -> None:
        if self.micro_batch_tokens is not None and self.micro_batch_tokens < 1:
            raise ValueError(f"micro_batch_tokens={self.micro_batch_tokens} must be at least 1, or None")
        if self.stop_on_health or self.roll_back_on_health:
            self._check_health()
        if self.max_bad_steps < 0:
            raise ValueError(f"max_bad_steps={self.max_bad_steps} must be at least 0")
        if self.hang_timeout is not None and self.hang_timeout <= 0:
            raise ValueError(
                f"hang_timeout={self.hang_timeout} must be a positive number of seconds, or None"
            )
        if self.on_bad_step == "rollback" and self.save_only_model:
            raise ValueError(
                'on_bad_step="rollback" needs the optimizer in each checkpoint; leave save_only_model out'
            )

    def _check_health(self) -> None:
        # Only where it is needed: a config is made in a moment, and `monitor` is not read in one.
        from ..monitor.health_rules import check_names

        check_names("stop_on_health", self.stop_on_health)
        check_names("roll_back_on_health", self.roll_back_on_health)
        if not self.health:
            raise ValueError("stop_on_health and roll_back_on_health need health=True")
        if self.roll_back_on_health and self.save_only_model:
            raise ValueError(
                "roll_back_on_health needs the optimizer in each checkpoint; leave save_only_model out"
            )

    def _choose_precision(self) -> None:
        able = self._accelerated and is_torch_bf16_gpu_available()
        if self.bf16 is None and not self.fp16:
            self.bf16, self.fp16 = asked_precision("bf16", able), asked_precision("fp16", False)
        elif self.bf16 is None:
            self.bf16 = False
        elif self.bf16 and not able and not self.use_cpu:
            raise ValueError(
                "bf16=True, but this machine has no accelerator that computes in bfloat16. Leave bf16 out "
                "(precision follows the machine: float32 here), or add use_cpu=True for bfloat16 autocast on the CPU."
            )
        if self.fp16 and not self._accelerated:
            raise ValueError(
                "fp16=True needs an accelerator and none is in use here. Leave fp16 out: it follows the machine."
            )

    def _choose_checkpointing(self) -> None:
        """Settle `gradient_checkpointing` and, where transformers has it, its new name."""
        names = [n for n in ("activation_checkpointing", "gradient_checkpointing") if hasattr(self, n)]
        asked = {getattr(self, n) for n in names} - {None}
        if len(asked) > 1:
            raise ValueError(
                "activation_checkpointing and gradient_checkpointing are one switch and differ; "
                "give the same value to both, or leave one out"
            )
        on = bool(asked.pop()) if asked else self._accelerated
        given: dict[str, Any] = next(
            (v for n in names if (v := getattr(self, f"{n}_kwargs")) is not None), {}
        )
        for name in names:
            setattr(self, name, on)
            setattr(self, f"{name}_kwargs", {"use_reentrant": False, **given})

    def machine(self) -> str:
        """One line: the device, precision and memory choices of this run."""
        precision = "bfloat16" if self.bf16 else "float16" if self.fp16 else "float32"
        recompute = "on" if self.gradient_checkpointing else "off"
        ranks = f"{self.world_size} process{'es' if self.world_size > 1 else ''}"
        return f"{self.device}, {ranks}, precision {precision}, gradient checkpointing {recompute}"

    def _announce(self) -> None:
        line = self.machine()
        if self.process_index == 0 and line not in _announced:
            _announced.add(line)
            print(f"trellis: {line}", file=sys.stderr)


def adopt(args: Any, cls: type[C]) -> C:
    """`args` itself, or a `cls` with the values of a plain TrainingArguments (None: with its defaults); columns are always kept.

    Raises TypeError for anything else, another trainer's config among them.
    """
    if args is None:
        return cls()
    if isinstance(args, cls):
        return args
    if not isinstance(args, TrainingArguments) or isinstance(args, TrellisConfig):
        raise TypeError(
            f"args must be {cls.__name__}(…) or plain TrainingArguments(…), found {type(args).__name__}; data goes to "
            "train_dataset=…, a tokenizer to processing_class=…"
        )
    values = {f.name: getattr(args, f.name) for f in fields(args) if f.init}
    return cls(**{**values, "remove_unused_columns": False})
