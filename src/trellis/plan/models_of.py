"""The shapes of the models that names stand for; no weights are read."""

from __future__ import annotations

from typing import Any

from ..models import add_adapter
from .machine import base_of
from .shape import Shape, empty_model


def shape_of(name: str, *, classifier: bool = False, what: str = "model") -> Shape:
    """The shape of the model in a directory or on the hub (of an adapter: of its base). Raises ValueError where there is none."""
    return Shape.of_model(_empty(name, classifier, what))


def trained_shape(name: str, peft_config: Any, *, classifier: bool = False) -> tuple[Shape, int]:
    """(the shape of the model to train, the trained numbers of its adapter: 0 without one)."""
    model = _empty(name, classifier, "model")
    shape = Shape.of_model(model)
    config = peft_config if peft_config is not None else _own_adapter(name)
    return shape, 0 if config is None else adapter_numbers(model, config)


def adapter_numbers(model: Any, config: Any) -> int:
    """Trained numbers of an adapter on a model of the meta device, which is changed."""
    import torch

    with torch.device("meta"):
        adapted = add_adapter(model, config, config.task_type or "CAUSAL_LM")
    return sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def _own_adapter(name: str) -> Any:
    if base_of(name) == name:
        return None
    from peft import PeftConfig

    return PeftConfig.from_pretrained(name)


def _empty(name: str, classifier: bool, what: str) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base_of(name))
        if classifier:
            config.num_labels = 1
        return empty_model(config, classifier=classifier)
    except (OSError, ValueError) as error:
        said = str(error).strip().split("\n")[0]
        raise ValueError(f"{what} {name}: it cannot be read ({said})") from error
