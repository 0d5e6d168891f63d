"""Who looks on while a trainer trains: the history, the record, health, samples and the live view."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from ..monitor import Health, History, LiveView, RunRecord, SampleFile

METHODS = ("sft", "reward", "dpo", "kto", "orpo", "cpo", "ppo", "grpo", "rloo")


def method_of(args: Any) -> str:
    """The method that a config is one of ("" for none of ours)."""
    names = [cls.__name__.removesuffix("Config").lower() for cls in type(args).__mro__]
    return next((name for name in names if name in METHODS), "")


def watchers(trainer: Any) -> list[TrainerCallback]:
    """The callbacks, in their order; the trainer gets `health` and `view`."""
    method = method_of(trainer.args)
    trainer.health = Health(trainer, method)
    trainer.view = LiveView(trainer, method)
    return [History(), RunRecord(trainer), trainer.health, SampleFile(trainer), trainer.view]
