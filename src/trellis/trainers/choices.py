"""What a run settles for itself, where nobody said otherwise, in one line after its first step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from transformers import TrainerCallback

from ..models import base_causal_lm, policy_of
from ..scoring import layouts_of

PRODUCTS = {
    "highest": "full float32",
    "high": "TF32 or as good as it",
    "medium": "bfloat16 where the hardware has it",
}
"""What matrix products of float32 numbers are computed in, by the name that torch gives it."""

FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
"""Attention that has a package of its own."""


@contextmanager
def products_in(precision: str | None) -> Iterator[None]:
    """Within it, products of float32 matrices have `precision` ("highest", "high", "medium"; None: as found)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision or before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def during(trainer: Any) -> Iterator[None]:
    """What holds while a trainer trains: signals are caught, hangs and times seen, products computed as asked."""
    with trainer.signals.caught(), trainer.watchdog.running(), trainer.profile.running():
        with (
            trainer.view.shown(),
            products_in(trainer.args.float32_matmul_precision),
            trainer.switches.running(),
        ):
            yield


def chosen(trainer: Any) -> str:
    """Layout, attention, cut of micro-batches, activations, products and threads, as they are in use."""
    args, memory = trainer.args, trainer.memory
    model = trainer.accelerator.unwrap_model(trainer.model)
    lm = base_causal_lm(policy_of(model))
    plans = layouts_of(lm)
    scored = next(
        (f"scored {plan.layout} ({plan.reason})" for plan in plans if plan.reason), "scored as it is"
    )
    if memory.rows is not None:
        cut = f"{memory.rows} rows at once (what fits)"
    elif args.micro_batch_tokens is not None:
        cut = f"micro-batches cut at {args.micro_batch_tokens} tokens"
    else:
        cut = f"micro-batches of {args.per_device_train_batch_size} whole"
    parts = (
        scored,
        attention(lm, args),
        cut,
        f"activations {_activations(args)}",
        f"float32 products in {PRODUCTS[torch.get_float32_matmul_precision()]}",
        f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}",
    )
    return ", ".join(parts)


def attention(lm: Any, args: Any) -> str:
    """Which attention a model computes, and why that one."""
    found = getattr(lm.config, "_attn_implementation", None)
    if found is None:
        return "attention its own"
    asked = "attn_implementation" in (getattr(args, "model_init_kwargs", None) or {})
    if found == "sdpa":
        return f"attention sdpa ({'as asked' if asked else 'reads rows without padding'})"
    there = [name for name, package in FLASH.items() if find_spec(package) is not None]
    more = f"; installed: {', '.join(there)}" if there else ""
    return f"attention {found} ({'as asked' if asked else 'as the model came'}; sdpa would need no padding{more})"


def _activations(args: Any) -> str:
    kept = "computed again" if args.gradient_checkpointing else "kept"
    if not args.activation_offloading:
        return kept
    return f"{kept} (in the CPU's memory{', where they are' if args.device.type == 'cpu' else ''})"


class Choices(TrainerCallback):
    """Says them once, when the first step has shown what suits the model."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.said = trainer, False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.said and args.process_index == 0:
            print(f"trellis: {chosen(self.trainer)}", file=sys.stderr)
        self.said = True
