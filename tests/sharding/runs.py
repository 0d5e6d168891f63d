"""Runs of the trainers of tests/invariance, sharded by FSDP2 where several processes share them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from tests.builders import tiny_model
from tests.invariance import cases
from tests.invariance.cases import CASES, ROWS
from trellis.models.sharded import checksum, sharding_of, whole
from trellis.rollout import SamplingParams, sample

ASKED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}
"""What `accelerate launch` says to the processes that it starts with the preset fsdp2."""

RUNS: dict[str, dict[str, Any]] = {
    **{name: {} for name in CASES},
    "ppo-critic": {"critic": True},
    "kto-whole": {},  # one micro-batch per step, in whose training pass the step's KL is found
    "dpo-lora": {"peft": True, "gradient_checkpointing": True},
}
KEPT = ("ppo", "ppo-critic", "grpo", "dpo-lora")
"""Runs that are saved after their second step, and gone on with."""


def build(key: str, folder: Path) -> Any:
    """The trainer of a run, ROWS rows per optimizer step over all processes; sharded where there are several."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        os.environ.update(ASKED)
    fields = {"max_steps": 3, "logging_steps": 1, "save_steps": 2, **RUNS[key]}
    if key in KEPT:
        fields["save_strategy"] = "steps"
    rows = ROWS // world if key.endswith("-whole") else 2
    return CASES[key.split("-")[0]].build(str(folder), rows, ROWS // rows // world, **fields)


def outcome(trainer: Any) -> dict[str, Any]:
    """Weights in full, what was logged, and (of on-policy runs) the last rollout's tokens."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    before, sharded = checksum(model), sharding_of(model)
    with whole(model):
        weights = {name: x.detach().clone() for name, x in model.state_dict().items()}
    assert checksum(model) == before
    rollout, reference = getattr(trainer, "rollout", None), getattr(trainer, "reference", None)
    if reference is not None and reference.model is not None:
        assert sharding_of(reference.model) == sharded
    return {
        "weights": weights,
        "log": [cases._comparable(entry) for entry in trainer.state.log_history],
        "tokens": None if rollout is None else rollout.input_ids,
        "sharded": sharded,
    }


def run(key: str, folder: Path) -> dict[str, Any]:
    """A whole run's outcome."""
    trainer = build(key, folder)
    trainer.train()
    return outcome(trainer)


def resumed(key: str, folder: Path, origin: Path) -> dict[str, Any]:
    """The outcome of a run that goes on where another was after two steps."""
    trainer = build(key, folder)
    trainer.train(resume_from_checkpoint=str(origin / "checkpoint-2"))
    return outcome(trainer)


def on_this_rank(folder: str, alone: str) -> dict[str, Any]:
    """Every run, those kept resumed from their own checkpoint and from that of one process (in `alone`); and a bare model."""
    found = {key: run(key, Path(folder, key)) for key in RUNS}
    again = {key: resumed(key, Path(folder, "again", key), Path(folder, key)) for key in KEPT}
    grown = {key: resumed(key, Path(folder, "grown", key), Path(alone, key)) for key in KEPT[:1]}
    return {"run": found, "again": again, "grown": grown, "bare": bare()}


def bare() -> dict[str, Any]:
    """What `whole` lets through and what it keeps out, of a model that the user sharded."""
    from torch.distributed.fsdp import fully_shard

    model, plain = tiny_model("llama"), tiny_model("llama")
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard([model.model.norm, model.lm_head], reshard_after_forward=False)
    fully_shard(model)
    start = checksum(model)
    ids = torch.arange(5)[None]
    with torch.no_grad():
        model(ids)  # the outermost part stays gathered
    prompts, params = [[5, 6, 7], [8, 9]], SamplingParams(8)
    with whole(model):
        said = [c.ids for c in sample(model, prompts, params, n=2, seeds=range(4))]
        with whole(model):
            inner = sharding_of(model)
    want = [c.ids for c in sample(plain, prompts, params, n=2, seeds=range(4))]
    try:
        with whole(model), torch.no_grad():
            model.lm_head.weight.add_(1)
        refused = ""
    except RuntimeError as error:
        refused = str(error)
    unchanged = checksum(model) == start
    with whole(model, writeback=True), torch.no_grad():
        model.lm_head.weight.add_(1)
    with torch.no_grad():
        plain.lm_head.weight.add_(1)
        same = torch.equal(model(ids).logits, plain(ids).logits)
    return {
        "said": said == want,
        "inner": inner,
        "refused": refused,
        "unchanged": unchanged,
        "changed": checksum(model) != start,
        "same": same,
        "outer": sharding_of(model),
    }
