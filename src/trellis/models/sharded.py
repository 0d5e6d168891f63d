"""One door to models whose parameters lie in pieces on several processes, by whomever they were cut (FSDP2, DeepSpeed ZeRO-3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from . import fsdp, zero


def sharding_of(model: nn.Module) -> str:
    """How the parameters of a model are cut: "fsdp2", "zero3", or "" where every process has them in full."""
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        return "zero3"
    return "fsdp2" if fsdp.cut(model) else ""


@contextmanager
def whole(model: nn.Module, *, writeback: bool = False) -> Iterator[None]:
    """Inside, all parameters of `model` are there in full on every process; all processes must enter and leave together.

    For sampling, saving, handing weights on. What is written to them is kept with `writeback` only: without it, parameters that
    were changed raise RuntimeError on leaving. Costs nothing for a model that is not cut.
    """
    with _gathered(model, writeback):
        before = {} if writeback else _versions(model)
        yield
        changed = [name for name, version in _versions(model).items() if before.get(name, version) != version]
        if changed:
            raise RuntimeError(
                f"{len(changed)} parameters were changed where they were only to be read (such as {changed[0]!r}): the change "
                "would be lost; write whole(model, writeback=True)"
            )


def one_by_one(parameters: Iterable[tuple[str, nn.Parameter]]) -> Iterator[tuple[str, Tensor]]:
    """Named parameters, each in full while it is its turn; all processes go through them together."""
    for name, parameter in parameters:
        holder = nn.Module()
        holder.register_parameter("parameter", parameter)
        with _gathered(holder, False):
            yield name, holder.parameter  # type: ignore[misc]


def mean_row(parameter: Any) -> Tensor:
    """The mean over a parameter's first dimension, which is kept, with its size 1; the parameter may lie in pieces."""
    if hasattr(parameter, "placements"):  # sums travel instead of the matrix
        return parameter.sum(0, keepdim=True).full_tensor() / parameter.shape[0]
    for _, whole_one in one_by_one([("", parameter)]):
        return whole_one.mean(0, keepdim=True)
    raise AssertionError


def _gathered(model: nn.Module, writeback: bool) -> Any:
    kind = sharding_of(model)
    if kind == "fsdp2":
        return fsdp.gathered(model, writeback=writeback)
    if kind == "zero3":
        return zero.gathered(model, writeback=writeback)
    return nullcontext()


def _versions(model: nn.Module) -> dict[str, int]:
    return {name: parameter._version for name, parameter in model.named_parameters()}


def checksum(model: nn.Module) -> int:
    """A number that a change of any one bit of the parameters changes, the same on every process that has a piece of them."""
    total = _bits(_piece(parameter) for parameter in model.parameters())
    if sharding_of(model) and dist.is_initialized():
        device = next(iter(model.parameters())).device
        everywhere = torch.tensor(total, device=device)
        dist.all_reduce(everywhere)
        total = int(everywhere)
    return total


def _piece(parameter: Any) -> Tensor:
    if hasattr(parameter, "ds_tensor"):
        return parameter.ds_tensor
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def _bits(pieces: Iterable[Tensor]) -> int:
    total = 0
    for place, piece in enumerate(pieces):
        flat = piece.detach().contiguous().reshape(-1).view(torch.uint8)
        total = (total * 31 + int(flat.sum(dtype=torch.int64)) * (place + 1)) % (1 << 40)
    return total
