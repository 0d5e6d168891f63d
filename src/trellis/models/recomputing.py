"""Recomputed activations, switched on, off, and off for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from .modules import base_causal_lm


def recompute(model: nn.Module, on: bool, options: dict[str, Any] | None = None, **more: Any) -> None:
    """Switch a transformers model's recomputing of activations in backward on or off, by the name that its release has."""
    base: Any = base_causal_lm(model)
    today = hasattr(base, "activation_checkpointing_enable")
    name = f"{'activation' if today else 'gradient'}_checkpointing_{'enable' if on else 'disable'}"
    given = () if not on else (options,)
    getattr(base, name)(*given, **(more if today else {}))


@contextmanager
def disable_gradient_checkpointing(
    model: nn.Module, gradient_checkpointing_kwargs: dict[str, Any] | None = None
) -> Iterator[None]:
    """Inside, no layer of `model` recomputes its activations; afterwards those do that did before."""
    base: Any = base_causal_lm(model)
    on = [m for m in base.modules() if getattr(m, "gradient_checkpointing", False)]
    for module in on:
        module.gradient_checkpointing = False
    try:
        yield
    finally:
        for module in on:
            module.gradient_checkpointing = True
