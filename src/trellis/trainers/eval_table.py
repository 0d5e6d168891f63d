"""A table of what models write after held-out prompts, shown at evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

from torch import nn

from ..models import learned_positions, unwrap
from ..monitor import send, show
from ..rollout import SamplingParams, sample, stop_ids
from .seeds import derived_seed

ROWS = 8
LONGEST = 256
Writers = Mapping[str, Callable[[], AbstractContextManager[nn.Module]]]


def room(trainer: Any, model: nn.Module, longest: int) -> int:
    """Tokens that a sample may have: the limit of completions, or what max_length and the model's positions leave."""
    args = trainer.args
    limits = [getattr(args, "max_completion_length", None) or LONGEST]
    limits += [x - longest for x in (args.max_length, learned_positions(model)) if x is not None]
    return max(1, min(limits))


def sample_table(trainer: Any, rows: Any, writers: Writers) -> list[dict[str, str]]:
    """One row per prompt of the first prepared `rows`: the prompt and one sample of each of `writers`, drawn with the same
    seeds at every evaluation."""
    tokenizer, policy = trainer.processing_class, unwrap(trainer.model)
    prompts = [list(row["prompt_ids"]) for row in islice(rows, ROWS)]
    prompts = [ids for ids in prompts if ids]
    if not prompts:
        return []
    params = SamplingParams(
        max_new_tokens=room(trainer, policy, max(map(len, prompts))),
        stop_ids=stop_ids(tokenizer, getattr(policy, "generation_config", None)),
    )
    seeds = [derived_seed(trainer.args.seed, "table", i) for i in range(len(prompts))]
    table = [{"prompt": tokenizer.decode(ids, skip_special_tokens=True)} for ids in prompts]
    for name, writer in writers.items():
        with writer() as model, trainer.accelerator.autocast():
            written = sample(model, prompts, params, seeds=seeds)
        for line, completion in zip(table, written, strict=True):
            line[name] = tokenizer.decode(completion.ids, skip_special_tokens=True)
    return table


def show_samples(trainer: Any, rows: Any, writers: Writers) -> None:
    """Show the table in the terminal and send it to the trackers; the main process alone."""
    if not trainer.is_world_process_zero():
        return
    with trainer.watchdog.during("evaluating"):
        table = sample_table(trainer, rows, writers)
    step = trainer.state.global_step
    show(table, title=f"samples at step {step}")
    send(table, name="samples", step=step, callbacks=trainer.callback_handler.callbacks)
