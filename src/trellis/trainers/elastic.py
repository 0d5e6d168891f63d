"""A trainer's own state in a checkpoint that another number of processes wrote: what each of them had counted is put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from .. import checkpoint

SUMS = (("meter", "totals"), ("ppo", "step_kl"), ("grpo", "step_entropy"), ("on_policy", "notes"))
COUNTS = ("tokens_seen",)
State = tuple[dict[str, Tensor], dict[str, Any]]


def own_state(trainer: Any, folder: str | Path) -> State:
    """What this process goes on with from the checkpoint `folder`.

    With as many processes as wrote it, its own. With others, all counts go to the first, and nothing is counted twice; rollouts,
    controllers and the like are the same on every process.
    """
    world, rank = checkpoint.read_manifest(folder)["world_size"], trainer.args.process_index
    if world == trainer.args.world_size:
        return checkpoint.load_state(trainer.state_dir(folder))
    found = [checkpoint.load_state(Path(folder, f"trellis-{i}")) for i in range(world)]
    tensors, plain = found[0]
    others = [state for _, state in found[1:]]
    for outer, inner in SUMS:
        if outer in plain and inner in plain[outer]:
            parts = [plain[outer][inner], *(state[outer][inner] for state in others)]
            plain[outer][inner] = _sum(parts) if rank == 0 else _none(parts[0])
    for name in COUNTS:
        if name in plain:
            plain[name] = plain[name] + sum(state[name] for state in others) if rank == 0 else 0
    if "rewards" in plain:  # of earlier steps, which all processes know; of the last one, each its own
        parts = [plain["rewards"][2:], *(state["rewards"][2:] for state in others)]
        plain["rewards"][2:] = _sum(parts) if rank == 0 else _none(parts[0])
    losses = [state["logging"]["tr_loss"] for state in (plain, *others)]
    plain["logging"]["tr_loss"] = sum(losses) / world
    return tensors, plain


def _sum(parts: list[Any]) -> Any:
    """The sum of numbers, or of lists or mappings of them, place by place."""
    if isinstance(parts[0], dict):
        return {
            key: _sum([part[key] for part in parts if key in part])
            for key in {k: 0 for p in parts for k in p}
        }
    if isinstance(parts[0], list):
        return [_sum(list(several)) for several in zip(*parts, strict=True)]
    return sum(parts)


def _none(part: Any) -> Any:
    """The same shape with nothing counted."""
    if isinstance(part, dict):
        return {}
    return [_none(x) for x in part] if isinstance(part, list) else 0.0
