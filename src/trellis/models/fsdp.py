"""Models cut over processes by torch's `fully_shard` (FSDP2): parameters are DTensors, hooks gather them layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_with_kwargs",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def gathers(module: nn.Module) -> bool:
    """Whether calling the module gathers its parameters first."""
    return any(map(_is_fsdp, module._forward_pre_hooks.values()))


def cut(model: nn.Module) -> bool:
    """Whether parameters of the model lie in pieces, or would if they were not gathered just now."""
    return any(map(gathers, model.modules())) or any(hasattr(p, "placements") for p in model.parameters())


def cut_like(model: nn.Module, other: Any) -> None:
    """Cut a frozen `model` over the processes of `other`, in the same precision: its layers, and what it has beside them.

    A model that is cut already, or has quantised weights, stays as it is.
    """
    if cut(model) or not all(p.is_floating_point() for p in model.parameters()):
        return
    from torch.distributed.fsdp import fully_shard

    state = next(module for module in other.modules() if gathers(module))._get_fsdp_state()
    mesh = next(p for p in other.parameters() if hasattr(p, "device_mesh")).device_mesh
    layers = set(getattr(model, "_no_split_modules", None) or ())
    for module in reversed(list(model.modules())):
        if module is model or type(module).__name__ in layers:
            fully_shard(module, mesh=mesh, mp_policy=state._mp_policy)


@contextmanager
def gathered(model: nn.Module, *, writeback: bool) -> Iterator[None]:
    """Inside, every parameter is a plain one with all its values, and calling the model or a part of it gathers nothing."""
    for module in model.modules():
        if gathers(module):
            module.reshard()  # type: ignore[operator]  # a forward pass without backward leaves the outermost gathered
    places = _places(model)
    full = {id(p): _full(p) for _, _, p in places}
    for module, name, parameter in places:
        module._parameters[name] = full[id(parameter)]
    hooks = _without_hooks(model)
    try:
        yield
        if writeback:
            for module, name, parameter in places:  # what stands there now: peft puts others in their place
                _write(parameter, module._parameters[name])  # type: ignore[arg-type]
    finally:
        for module, name, parameter in places:
            module._parameters[name] = parameter
        for module, before in hooks:
            module.__dict__.update(before)


def _places(model: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Where parameters in pieces are registered; a tied one several times."""
    return [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if hasattr(parameter, "placements")
    ]


def _full(parameter: Any) -> nn.Parameter:
    with torch.no_grad():
        return nn.Parameter(parameter.detach().full_tensor(), requires_grad=parameter.requires_grad)


@torch.no_grad()
def _write(parameter: Any, full: Tensor) -> None:
    """This process's piece of `full`, which all processes have alike, into `parameter`."""
    from torch.distributed.tensor import distribute_tensor

    piece = distribute_tensor(full.detach(), parameter.device_mesh, parameter.placements, src_data_rank=None)
    parameter.to_local().copy_(piece.to_local())


def _without_hooks(model: nn.Module) -> list[tuple[nn.Module, dict[str, Any]]]:
    """Take FSDP's hooks away from `model` and its parts; returns what they had before."""
    before = []
    for module in model.modules():
        mine = {name: getattr(module, name) for name in HOOKS}
        theirs = {i for hooks in mine.values() for i, hook in hooks.items() if _is_fsdp(hook)}
        if theirs:
            before.append((module, mine))
            for name, hooks in mine.items():
                kept = type(hooks)((i, hook) for i, hook in hooks.items() if i not in theirs)
                module.__dict__[name] = kept
    return before


def _is_fsdp(hook: Any) -> bool:
    return (getattr(hook, "__module__", None) or "").startswith("torch.distributed.fsdp")
