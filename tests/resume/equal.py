"""What must be the same after an interruption: every weight, both moments of the optimizer, the whole log."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

CLOCK = ("eps", "step_time", "_runtime", "_per_second")


def weights_hash(trainer: Any) -> str:
    """SHA-256 over the name and bytes of every tensor of the trained model, the critic included."""
    return tensors_hash(trainer.model.state_dict())


def optimizer_hash(trainer: Any) -> str:
    """SHA-256 over every tensor and number of the optimizer's state."""
    state = trainer.optimizer.state_dict()["state"]
    return tensors_hash(
        {f"{i}.{name}": torch.as_tensor(v) for i, s in state.items() for name, v in s.items()}
    )


def tensors_hash(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(
            tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return total.hexdigest()


def history(trainer: Any) -> list[dict[str, float]]:
    """The log without what a clock measured."""
    return [{k: v for k, v in e.items() if not k.endswith(CLOCK)} for e in trainer.state.log_history]


def disturb() -> None:
    """Leave the global random streams as a process that did other things would have them."""
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)


def difference(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> list[str]:
    """One line per logged value that differs (a NaN equals a NaN)."""
    if len(ours) != len(theirs):
        return [f"{len(ours)} log entries instead of {len(theirs)}"]
    return [
        f"entry {i} (step {b.get('step')}): {key} is {a.get(key)!r} instead of {b.get(key)!r}"
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True))
        for key in sorted({*a, *b})
        if repr(a.get(key)) != repr(b.get(key))
    ]
