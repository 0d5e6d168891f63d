"""A frozen copy of a model, whose first layers may be the model's own."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

LAYERS = ("transformer.h", "model.decoder.layers", "gpt_neox.layers", "model.layers", "decoder.block")
"""Where architectures keep their layers."""


def create_reference_model(
    model: nn.Module, num_shared_layers: int | None = None, pattern: str | None = None
) -> Any:
    """A frozen copy of `model` in eval mode. Trainers make their own: leave ref_model out.

    With `num_shared_layers`, everything before layer `num_shared_layers` is not copied but the model's own, which is frozen too:
    less memory, and only the later layers learn. `pattern` says where layers are ("backbone.blocks.{layer}"). Raises ValueError
    where no parameter has such a name.
    """
    memo: dict[int, Any] = {}
    if num_shared_layers is not None:
        for parameter in _before(model, num_shared_layers, pattern):
            memo[id(parameter)] = parameter.requires_grad_(False)
    return copy.deepcopy(model, memo).eval().requires_grad_(False)


def _before(model: nn.Module, layer: int, pattern: str | None) -> list[nn.Parameter]:
    """The parameters that come before a layer, in the model's own order."""
    wanted = [f"{place}.{layer}" for place in LAYERS] if pattern is None else [pattern.format(layer=layer)]
    named = list(model.named_parameters())
    at = next((i for i, (name, _) in enumerate(named) if any(f"{w}." in f".{name}." for w in wanted)), None)
    if at is None:
        raise ValueError(
            f"num_shared_layers={layer}: no parameter is of {' or '.join(wanted)}; the model's are called {named[0][0]} … "
            f"{named[-1][0]}. Write pattern='…{{layer}}'"
        )
    return [parameter for _, parameter in named[:at]]
