"""What every rank does in the tests of DeepSpeed: trainers built and run in one process after another."""

from __future__ import annotations

import gc
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from tests.faults.spoiled import spoiled
from tests.invariance import cases
from tests.resume.equal import disturb
from trellis.models.sharded import checksum, whole

# DeepSpeed knows no float64. With a large epsilon Adam does not blow rounding up where gradients are next to nothing.
CALM = {"adam_epsilon": 1e-2, "logging_steps": 1}
SAVED = {"save_strategy": "steps", "save_steps": 3}
RESUMED = ("dpo", "ppo", "grpo")
SPARE = {"max_bad_steps": 3, "logging_steps": 1, "save_strategy": "no"}


def config(stage: int, **more: Any) -> dict[str, Any]:
    """A `deepspeed=` config as users write it; in ZeRO-3 no parameter is too small to be cut."""
    auto = dict.fromkeys(
        ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size"), "auto"
    )
    return {**auto, "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0}, **more}


def arguments(folder: Path, **changes: Any) -> Any:
    """Arguments of three micro-batches of two rows."""
    from trellis import SFTConfig

    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "use_cpu": True}
    return SFTConfig(output_dir=str(folder), **cut, **changes)


def begin() -> None:
    """Once per process."""
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


def cut(folder: str) -> dict[str, Any]:
    """Everything that is asked of two ranks, by the name of what was asked."""
    begin()
    found: dict[str, Any] = {}
    for stage in (2, 3):
        for name in cases.CASES:
            kept = SAVED if name in RESUMED else {}
            where = Path(folder, f"{name}-{stage}")
            found[f"{name} {stage}"] = train(name, where, 2, 2, deepspeed=config(stage), **kept)
            end()
        for name in RESUMED:
            found[f"{name} {stage} resumed"] = resumed(name, Path(folder, f"{name}-{stage}"), stage)
        found[f"bad step {stage}"] = left_out(Path(folder, f"bad-{stage}"), stage)
    found["by name"] = by_name(folder, batch=2, deepspeed=config(3))
    end()
    return found


def resumed(name: str, saved: Path, stage: int) -> dict[str, Any]:
    """A run that goes on from the checkpoint that another left after its third step."""
    trainer = cases.CASES[name].build(
        str(saved) + "-again", 2, 2, **{**CALM, **SAVED, "deepspeed": config(stage)}
    )
    disturb()
    trainer.train(resume_from_checkpoint=str(saved / "checkpoint-3"))
    found = outcome(trainer)
    end()
    return found


def alone(folder: str, stage: int) -> dict[str, Any]:
    """One rank goes on from what two have saved: what is said before and after their state is converted."""
    begin()
    saved = Path(folder, f"ppo-{stage}", "checkpoint-3")
    build = partial(cases.CASES["ppo"].build, f"{folder}/alone-{stage}", 4, 2, **CALM)
    try:
        build(deepspeed=config(stage)).train(resume_from_checkpoint=str(saved))
        said = ""
    except ValueError as error:
        said = str(error)
    end()
    command = said.partition("python -m deepspeed.checkpoint.ds_to_universal ")[2].split()
    convert(command)
    trainer = build(deepspeed=config(stage))
    trainer.train(resume_from_checkpoint=str(saved))
    found = {"said": said, **outcome(trainer)}
    end()
    return found


def convert(words: list[str]) -> None:
    """DeepSpeed's own command, in this process."""
    from deepspeed.checkpoint import ds_to_universal

    before, sys.argv = sys.argv, ["ds_to_universal", *words]
    ds_to_universal.main(ds_to_universal.parse_arguments())
    sys.argv = before


def left_out(folder: Path, stage: int) -> dict[str, Any]:
    """Runs with a row whose loss or gradient is not finite: how many steps were bad, and whether the weights moved."""
    found = {}
    for how in ("loss", "gradient")[
        : 4 - stage
    ]:  # ZeRO-3 has no whole weight outside forward to hang a gradient on
        trainer = spoiled(
            folder / how, how=how, on_bad_step="skip", deepspeed=config(stage), max_steps=3, **SPARE
        )
        seen: list[int] = []
        trainer.add_callback(Sums(trainer, seen))
        trainer.train()
        found[how] = {
            "bad": trainer.bad_steps.count,
            "moved": [a != b for a, b in pairwise(seen)],
            "rates": [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry],
        }
        end()
    return found


class Sums(TrainerCallback):
    """Notes a checksum of the weights at the beginning and after each step."""

    def __init__(self, trainer: Any, seen: list[int]) -> None:
        self.trainer, self.seen = trainer, seen

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append(checksum(self.trainer.accelerator.unwrap_model(self.trainer.model)))

    on_step_end = on_train_begin


def by_name(folder: str, batch: int, **changes: Any) -> dict[str, Any]:
    """PPO whose policy, critic and reward are named, so that they are cut while they are loaded."""
    from trellis import PPOConfig, PPOTrainer

    own = {"response_length": 8, "num_mini_batches": 1, "num_ppo_epochs": 1, "num_sample_generations": 0}
    fields = {**cases.COMMON, **CALM, **own, **changes, "per_device_train_batch_size": batch}
    trainer = PPOTrainer(
        args=PPOConfig(output_dir=f"{folder}/by-name", gradient_accumulation_steps=2, **fields),
        model=f"{folder}/policy",
        value_model=f"{folder}/policy",
        reward_model=f"{folder}/reward",
        train_dataset=[{"prompt": text} for text in cases.sentences(20, seed=3)],
    )
    trainer.train()
    return outcome(trainer)
