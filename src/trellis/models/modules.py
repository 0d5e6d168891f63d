"""What can be asked of, or done to, a module of any architecture."""

from __future__ import annotations

import copy
import inspect
from typing import Any

from torch import nn

_WRAPPERS = {"DistributedDataParallel", "DataParallel", "FullyShardedDataParallel", "DeepSpeedEngine"}


def unwrap(model: nn.Module) -> nn.Module:
    """The user's module inside distributed and compile wrappers; an adapter around it stays."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif type(model).__name__ in _WRAPPERS:
            model = model.module
        else:
            return model


def policy_of(model: nn.Module) -> Any:
    """The model that writes, inside wrappers: the policy where a critic is beside it, else the model itself."""
    model = unwrap(model)
    return unwrap(getattr(model, "policy", model))


def base_causal_lm(model: nn.Module) -> nn.Module:
    """The transformers model inside wrappers and adapters (its layers may hold the adapter's)."""
    model = unwrap(model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def shares_parameters(a: nn.Module, b: nn.Module) -> bool:
    """Whether a step on one could change the other; what is frozen in both may be shared."""
    mine = {p.data_ptr(): p.requires_grad for p in a.parameters() if p.numel()}
    return any(p.requires_grad or mine[p.data_ptr()] for p in b.parameters() if p.data_ptr() in mine)


def classifier_head(model: nn.Module) -> nn.Module:
    """The module that turns hidden states into a sequence classifier's scores. Raises TypeError where there is none."""
    base = base_causal_lm(model)
    for name in ("score", "classifier"):
        if isinstance(getattr(base, name, None), nn.Module):
            return getattr(base, name)
    raise TypeError(f"{type(base).__name__} has no score or classifier head: it is not a sequence classifier")


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability to 0 for good: dropout modules (an adapter's too), probabilities that modules keep as
    numbers (attention dropout, layer drop), and those that they read from their config, of which they get their own copy.
    """
    copies: dict[int, Any] = {}
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name in _probabilities(module):
            setattr(module, name, 0.0)
        config = vars(module).get("config")
        # A whole model's config is what gets saved: it stays as it was loaded. Layers only read theirs.
        if not hasattr(module, "save_pretrained") and config is not None and _probabilities(config):
            if id(config) not in copies:
                copies[id(config)] = copy.deepcopy(config)
                for name in _probabilities(config):
                    setattr(copies[id(config)], name, 0.0)
            module.config = copies[id(config)]


def _probabilities(thing: Any) -> list[str]:
    values = vars(thing).items()
    return [k for k, v in values if "drop" in k and isinstance(v, float) and 0.0 < v <= 1.0]


def learned_positions(model: nn.Module) -> int | None:
    """How many tokens the model can read at all; None where positions are rotary and do not end."""
    config = model.config.get_text_config(decoder=True)  # type: ignore[union-attr, operator]
    if getattr(config, "rope_parameters", None) is not None:
        return None
    return getattr(config, "max_position_embeddings", None)


def cache_name(model: nn.Module) -> str:
    """What a model's forward calls its cache: `cache`, or `past_key_values` before transformers renamed it."""
    return (
        "cache"
        if "cache" in inspect.signature(base_causal_lm(model).forward).parameters
        else "past_key_values"
    )
