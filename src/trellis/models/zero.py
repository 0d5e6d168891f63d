"""Models whose parameters DeepSpeed ZeRO-3 keeps in pieces, one per process, and gathers around the forward of each layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_gathered_now: set[int] = set()


@contextmanager
def gathered(model: nn.Module, *, writeback: bool = False) -> Iterator[None]:
    """Inside, the parameters of `model` are there in full, and stay so whatever is called: the layers' own gathering is off.

    `writeback`: what process 0 wrote to them is kept, on every process. Parameters that an outer call holds are left alone.
    """
    held = [p for p in model.parameters() if hasattr(p, "ds_id") and p.ds_id not in _gathered_now]
    if not held:
        yield
        return
    import deepspeed

    ids = {p.ds_id for p in held}
    with _hooks_off(model), deepspeed.zero.GatheredParameters(held, modifier_rank=0 if writeback else None):
        _gathered_now.update(ids)
        try:
            yield
        finally:
            _gathered_now.difference_update(ids)


@contextmanager
def _hooks_off(model: nn.Module) -> Iterator[None]:
    """Without DeepSpeed's forward hooks, which would let a layer's parameters go as soon as it is through."""
    off: list[tuple[Any, list[tuple[int, Any]]]] = []
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            kept = list(hooks.items())
            if any(_is_deepspeeds(hook) for _, hook in kept):
                off.append((hooks, kept))
    for hooks, kept in off:
        hooks.clear()
        hooks.update((number, hook) for number, hook in kept if not _is_deepspeeds(hook))
    try:
        yield
    finally:
        for hooks, kept in off:
            hooks.clear()
            hooks.update(kept)


def in_pieces(model: nn.Module) -> bool:
    """Whether a model was cut when it was loaded, and nothing gathers its parameters: no engine has taken it (a frozen one)."""
    return hasattr(next(model.parameters(), None), "ds_id") and not gathers(model)


def gathers(module: nn.Module) -> bool:
    """Whether calling the module gathers its parameters first."""
    return any(map(_is_deepspeeds, module._forward_pre_hooks.values()))


def _is_deepspeeds(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).startswith("deepspeed.")
