"""What every rank does in the tests of DeepSpeed: trainers built and run in one process after another."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch

from tests.invariance import cases
from trellis.models.sharded import checksum, whole

# DeepSpeed knows no float64. With a large epsilon Adam does not blow rounding up where gradients are next to nothing.
CALM = {"adam_epsilon": 1e-2, "logging_steps": 1}


def config(stage: int, **more: Any) -> dict[str, Any]:
    """A `deepspeed=` config as users write it; in ZeRO-3 no parameter is too small to be cut."""
    auto = dict.fromkeys(
        ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size"), "auto"
    )
    return {**auto, "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0}, **more}


def begin() -> None:
    """Once per process: float32, and gloo in place of a shared-memory operation that is compiled for minutes."""
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__ = {}
    cases.PRECISION = torch.float32


def end() -> None:
    """After a trainer: transformers would cut every further model as long as its config is there."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
    gc.collect()


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    """The trained weights, whole; that gathering them changes nothing is checked on the way."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    before = checksum(model)
    with whole(model):
        found = {name: x.detach().clone() for name, x in model.state_dict().items()}
    assert checksum(model) == before
    return found


def outcome(trainer: Any) -> dict[str, Any]:
    """Weights, log, and of on-policy runs the last rollout's tokens."""
    rollout = getattr(trainer, "rollout", None)
    return {
        "weights": weights(trainer),
        "log": [timeless(entry) for entry in trainer.state.log_history],
        "tokens": None if rollout is None else rollout.input_ids,
    }


def timeless(entry: dict[str, float]) -> dict[str, float]:
    """A logged step without clocks and what is counted in micro-batches."""
    clocks = ("runtime", "per_second", "preparation_time", "eps", "step_time", "total_flos", "epoch")
    return {name: value for name, value in entry.items() if not name.endswith(clocks)}


def train(name: str, folder: Path, batch: int, accumulation: int, **changes: Any) -> dict[str, Any]:
    """A whole run of one of the nine trainers."""
    trainer = cases.CASES[name].build(str(folder), batch, accumulation, **{**CALM, **changes})
    trainer.train()
    return outcome(trainer)


def nine(folder: str, stages: list[int]) -> dict[str, Any]:
    """All nine trainers under each stage of ZeRO, on these ranks."""
    begin()
    found = {}
    for stage in stages:
        for name in cases.CASES:
            found[f"{name} {stage}"] = train(
                name, Path(folder, f"{name}-{stage}"), 2, 2, deepspeed=config(stage)
            )
            end()
    return found
