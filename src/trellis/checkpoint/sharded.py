"""The optimizer of a model in pieces: every process writes its own, and any number of processes reads them again."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FOLDER = "optimizer"
WHOLE = "optimizer.pt"


def in_pieces(directory: str | Path) -> bool:
    """Whether the checkpoint `directory` holds an optimizer in pieces."""
    return Path(directory, FOLDER, ".metadata").is_file()


def save_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, directory: str | Path) -> None:
    """Write the optimizer's state to `directory`, each process its own piece; all processes call it together."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    state = get_optimizer_state_dict(model, optimizer)
    dcp.save({"optimizer": state}, storage_writer=dcp.FileSystemWriter(Path(directory, FOLDER)))


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, directory: str | Path) -> None:
    """Read what `save_optimizer`, or a run that was not sharded, wrote; `model` may be sharded in any way, or not at all."""
    if not in_pieces(directory):
        known = torch.load(Path(directory, WHOLE), map_location="cpu", weights_only=True, mmap=True)
        optimizer.load_state_dict({**known, "state": _cut(optimizer, known["state"])})
        return
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    state = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "torch.distributed is disabled"
        )  # one process reads what several wrote
        dcp.load(state, storage_reader=dcp.FileSystemReader(Path(directory, FOLDER)))
    set_optimizer_state_dict(model, optimizer, state["optimizer"])


def _cut(optimizer: torch.optim.Optimizer, state: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Of tensors as large as their parameter, the piece that this process has of the parameter."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    def piece(x: Any, like: Tensor) -> Any:
        if not (isinstance(x, Tensor) and isinstance(like, DTensor) and x.shape == like.shape):
            return x
        return distribute_tensor(x.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {i: {name: piece(x, parameters[i]) for name, x in values.items()} for i, values in state.items()}
