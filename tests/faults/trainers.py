"""Every trainer, by what its rows are and what it needs besides them. A new trainer joins by one line."""

from __future__ import annotations

from functools import cache
from typing import Any

import trellis
from tests.builders import tiny_classifier, tiny_model, tiny_tokenizer

ONLINE = {"response_length": 4, "num_sample_generations": 0, "num_ppo_epochs": 1, "total_episodes": 8}
GROUPS = {"max_completion_length": 4, "num_generations": 2}


def letters(completions: list[Any], **columns: Any) -> list[float]:
    """A reward: how long each completion is."""
    return [float(len(str(completion))) for completion in completions]


ROWS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "SFT": ("language", {"max_length": 64}, {}),
    "Reward": ("pairs", {"max_length": 64}, {}),
    "DPO": ("pairs", {"max_length": 64}, {}),
    "ORPO": ("pairs", {"max_length": 64}, {}),
    "CPO": ("pairs", {"max_length": 64}, {}),
    "KTO": ("unpaired", {"max_length": 64}, {}),
    "PPO": ("prompts", ONLINE, {"reward_funcs": letters}),
    "GRPO": ("prompts", GROUPS, {"reward_funcs": letters}),
    "RLOO": ("prompts", GROUPS, {"reward_funcs": letters}),
}
"""Trainer → (family of its rows, fields of its config, arguments of its constructor)."""


@cache
def _shared(kind: str) -> Any:
    return tiny_classifier() if kind == "Reward" else tiny_model()


def build(name: str, folder: Any, data: Any, *, fresh: bool = False, **fields: Any) -> Any:
    """The trainer `name` on `data`; `fresh`: with a model of its own, to be trained."""
    _, settings, more = ROWS[name]
    steps = {} if "total_episodes" in settings else {"max_steps": 1}
    common = {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "per_device_train_batch_size": 2}
    args = getattr(trellis, f"{name}Config")(str(folder), **{**common, **steps, **settings, **fields})
    model = (tiny_classifier() if name == "Reward" else tiny_model()) if fresh else _shared(name)
    return getattr(trellis, f"{name}Trainer")(
        model=model, args=args, train_dataset=data, processing_class=tiny_tokenizer(), **more
    )
