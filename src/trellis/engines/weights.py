"""A policy's weights as an engine wants them: whole, under transformers' names, adapters folded in on the way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..models import base_causal_lm, is_peft, unwrap


@dataclass(frozen=True)
class Weight:
    """One parameter. `read` makes its tensor when it is its turn: a folded copy lives no longer than one layer."""

    name: str
    shape: list[int]
    read: Callable[[], Tensor]


def weights_of(model: nn.Module) -> list[Weight]:
    """The parameters of `model` (tied ones once), with its active adapter folded into copies; the model is not changed.

    Raises ValueError for parameters that are packed into few bits or lie in pieces on several processes, and for adapters that
    are no part of the weights.
    """
    model = unwrap(model)
    if is_peft(model):
        kinds = {str(getattr(c.peft_type, "value", c.peft_type)) for c in model.peft_config.values()}  # type: ignore[union-attr]
        if any(config.is_prompt_learning for config in model.peft_config.values()):  # type: ignore[union-attr]
            raise ValueError(
                f"the adapter ({', '.join(sorted(kinds))}) is a prompt, not weights: an engine cannot take it over; "
                "train LoRA, or sample in this process (use_vllm=False)"
            )
    found, seen = [], set()
    for weight, parameter in _walk(base_causal_lm(model), ""):
        if id(parameter) not in seen:
            seen.add(id(parameter))
            _check_whole(weight.name, parameter)
            found.append(weight)
    return found


def _walk(module: nn.Module, prefix: str) -> Iterator[tuple[Weight, Tensor]]:
    if hasattr(module, "get_base_layer") and hasattr(
        module, "merge"
    ):  # an adapter's layer around one of the model's
        inner: Any = module
        for name, parameter in inner.get_base_layer().named_parameters():
            yield Weight(prefix + name, list(parameter.shape), _folded(module, name)), parameter
        return
    if hasattr(module, "modules_to_save") and hasattr(
        module, "original_module"
    ):  # a module trained as a whole
        kept: Any = module
        active = kept.active_adapters[0] if kept.active_adapters else None
        yield from _walk(
            kept.modules_to_save[active] if active in kept.modules_to_save else kept.original_module, prefix
        )
        return
    for name, parameter in module.named_parameters(recurse=False):
        yield Weight(prefix + name, list(parameter.shape), _as_is(parameter)), parameter
    for name, child in module.named_children():
        yield from _walk(child, f"{prefix}{name}.")


def _as_is(parameter: Tensor) -> Callable[[], Tensor]:
    return lambda: parameter.detach()


def _folded(layer: Any, name: str) -> Callable[[], Tensor]:
    def read() -> Tensor:
        own = layer
        if not (layer.merged or layer.disable_adapters):
            own = copy.deepcopy(layer)
            own.merge()
        return dict(own.get_base_layer().named_parameters())[name].detach()

    return read


def _check_whole(name: str, parameter: Tensor) -> None:
    if not parameter.is_floating_point():
        raise ValueError(
            f"parameter {name} is packed ({parameter.dtype}): a quantised policy cannot be handed to vLLM; load it without "
            "load_in_4bit or load_in_8bit, or sample in this process (use_vllm=False)"
        )
    if hasattr(parameter, "ds_id") or hasattr(parameter, "placements"):
        raise ValueError(
            f"parameter {name} lies in pieces on several processes: hand weights to vLLM from unsharded training (DDP, "
            "DeepSpeed ZeRO 1 or 2), or sample in this process (use_vllm=False)"
        )
