"""How many processes train, over what, and with the model cut how: what came up, held against what was asked for.

accelerate and transformers start something smaller without a word where they cannot do what they are told: one process where a
launcher was asked for several on CPUs, as many trainings as processes where nobody said `use_cpu`, whole copies (DDP) where FSDP
was to cut a model on CPUs. The first is an error here, before data is read; the others are put right, and what came up is looked
at when training begins.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from transformers import TrainerCallback

PLAIN = "whole copies (DDP)"


def asked_for() -> str:
    """What a launcher's environment asks for: "ddp", "fsdp" or "deepspeed"."""
    for name in ("fsdp", "deepspeed"):
        if os.environ.get(f"ACCELERATE_USE_{name.upper()}", "false").lower() in ("true", "1"):
            return name
    return "ddp"


def sharding(args: Any) -> str:
    """The same, with what the arguments themselves say."""
    return "deepspeed" if args.deepspeed else "fsdp" if args.fsdp else asked_for()


def asked_precision(name: str, default: bool) -> bool:
    """Whether a launcher's config says `mixed_precision: name`; where it says none, `default`."""
    found = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    return default if found == "no" else found == name


def prepare(args: Any) -> None:
    """Before devices are set up: ranks on a machine without GPUs meet over gloo. Raises ValueError for what could not come up."""
    launched = int(os.environ.get("LOCAL_RANK", -1)) != -1
    if launched and not torch.accelerator.is_available():
        args.use_cpu = True  # otherwise each process would be a training of its own, under DeepSpeed too
    ranks, cards = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.accelerator.device_count()
    if launched and not args.use_cpu and 0 < cards < ranks:
        raise ValueError(
            f"{ranks} processes were started on this machine, which has {cards} GPU(s); start {cards}: --nproc {cards}, "
            f"accelerate launch --num_processes {cards}, torchrun --nproc_per_node {cards}; or add --use_cpu"
        )
    if not launched and "ACCELERATE_USE_CPU" in os.environ and "MASTER_PORT" in os.environ:
        raise ValueError(
            "accelerate launch was asked for several processes and started one: on CPUs it starts no others. Type "
            "trellis VERB … --nproc N, or torchrun --standalone --nproc_per_node N SCRIPT …"
        )


def check_size(args: Any) -> None:
    """After devices are set up. Raises ValueError where fewer processes came together than were started."""
    started, together = int(os.environ.get("WORLD_SIZE", 1)), args.world_size
    if started != together:
        raise ValueError(
            f"{started} processes were started, but {together} came together on {args.device}: each would be a training of its "
            "own. Where there are no GPUs add --use_cpu; else start them by torchrun or accelerate launch"
        )
    _meet(args)


def _meet(args: Any) -> None:
    """On CPUs, let DeepSpeed know the processes that came together: models are cut over them from when they are loaded."""
    if args.use_cpu and sharding(args) == "deepspeed" and torch.distributed.is_initialized():
        from deepspeed import comm, ops

        # gloo it is: its operation over shared memory would be compiled first, for minutes, and waits for ever on a lock that a
        # killed run has left.
        ops.__compatible_ops__ = {}
        comm.init_distributed(torch.distributed.get_backend(), auto_mpi_discovery=False)


def lies(model: Any, accelerator: Any) -> str:
    """How `model`, as it is trained, lies on the processes."""
    kind = accelerator.distributed_type.value
    if kind == "DEEPSPEED":
        return f"ZeRO-{accelerator.state.deepspeed_plugin.zero_stage} (DeepSpeed)"
    if any(hasattr(p, "device_mesh") for p in model.parameters()):
        return "FSDP2"
    return "FSDP" if kind == "FSDP" else PLAIN


class World(TrainerCallback):
    """When training begins, says in one line what came up, and stops where it is less than what was asked for."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer, asked = self.trainer, sharding(args)
        if args.world_size == 1 and asked == "ddp":
            return
        found, precision = (
            lies(trainer.model_wrapped, trainer.accelerator),
            trainer.accelerator.mixed_precision,
        )
        if asked != "ddp" and found == PLAIN:
            raise ValueError(
                f"{asked} was asked for, and the model came up as {found}; ask for that: --accelerate ddp"
            )
        if args.process_index == 0:
            backend = torch.distributed.get_backend() if torch.distributed.is_initialized() else "nothing"
            print(
                f"trellis: {args.world_size} process(es) over {backend} on {args.device.type}: {found}, "
                f"{'float32' if precision == 'no' else precision}",
                file=sys.stderr,
            )
