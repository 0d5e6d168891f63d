"""Adapters through peft, which is imported only when one is asked for."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .quantized import made_trainable


def is_peft(model: Any) -> bool:
    """Whether `model` is a peft model (asked without importing peft)."""
    return hasattr(model, "peft_config") and hasattr(model, "disable_adapter")


def add_adapter(model: nn.Module, peft_config: Any, task_type: str) -> nn.Module:
    """`model` with a fresh adapter, or itself when `peft_config` is None; the caller's config is not changed.

    task_type: "CAUSAL_LM" or "SEQ_CLS" (which also trains and saves the classifier's head). A config that names another one is
    corrected with a warning; a quantised model is made ready for training. Raises ValueError when the model has an adapter
    already, TypeError for what is not a config.
    """
    if peft_config is None:
        return model
    from peft import PeftConfig, get_peft_model

    if not isinstance(peft_config, PeftConfig):
        raise TypeError(
            f"peft_config must be a peft config such as LoraConfig(...), found {type(peft_config).__name__}"
        )
    if is_peft(model):
        raise ValueError(
            "the model has an adapter already and peft_config asks for another one; leave peft_config out to train the one "
            "it has. For a new one on top of it, fold it in first (trellis merge ADAPTER --out DIRECTORY) and train on what "
            "that wrote: a saved adapter names its base, which must exist"
        )
    config = copy.deepcopy(peft_config)
    if config.task_type not in (None, task_type):
        warnings.warn(
            f"peft_config.task_type is {str(config.task_type)!r}, but this model needs {task_type!r}, which is used",
            stacklevel=3,
        )
    config.task_type = task_type
    with _without_peft_noise():
        return get_peft_model(made_trainable(model), config)


def load_adapter(base: nn.Module, directory: Path) -> nn.Module:
    """`base` with the trained adapter in `directory`, ready to train on."""
    from peft import PeftModel

    with _without_peft_noise():
        return PeftModel.from_pretrained(made_trainable(base), str(directory), is_trainable=True)


@contextmanager
def _without_peft_noise() -> Iterator[None]:
    # peft reads an attribute of the model that newer transformers have renamed; no user can do anything about it.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


def merged(model: nn.Module) -> nn.Module:
    """A copy of a peft model with its active adapter folded into the weights; any other model itself."""
    return copy.deepcopy(model).merge_and_unload() if is_peft(model) else model


def adapter_parameters(model: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """The parameters that belong to the adapter `name` (heads and embeddings that it replaces are among them)."""
    if model.peft_config[name].is_prompt_learning:
        return dict(model.prompt_encoder[name].named_parameters(prefix=f"prompt_encoder.{name}"))
    return {n: p for n, p in model.named_parameters() if name in n.split(".")}


def adapted_modules(model: nn.Module) -> list[dict[str, list[nn.Parameter]]]:
    """Of each peft model in `model`: the trainable parameters of its adapters by the name of the module they sit on.

    Where an adapter sits on no module (prompt learning), all of them under the name of the whole.
    """
    found = []
    for part in (m for m in model.modules() if is_peft(m)):
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import AuxiliaryTrainingWrapper

        owners = {id(p): type(part).__name__ for p in part.parameters()}
        for name, module in part.named_modules():
            if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
                owners.update((id(p), name.removeprefix("base_model.model.")) for p in module.parameters())
        modules: dict[str, list[nn.Parameter]] = {}
        for parameter in part.parameters():
            if parameter.requires_grad:
                modules.setdefault(owners[id(parameter)], []).append(parameter)
        found.append(modules)
    return [modules for modules in found if modules]


def is_fresh(model: nn.Module, name: str) -> bool:
    """Whether switching the adapter `name` off changes nothing: a LoRA whose B is all zeros and that replaces no module."""
    if "LORA" not in str(model.peft_config[name].peft_type):
        return False
    parameters = adapter_parameters(model, name)
    return bool(parameters) and all(_does_nothing(n, p, name) for n, p in parameters.items())


def _does_nothing(path: str, parameter: Tensor, adapter: str) -> bool:
    owner = path.split(".")[path.split(".").index(adapter) - 1]
    if owner in ("lora_B", "lora_embedding_B"):
        return not bool(parameter.any())
    return owner in ("lora_A", "lora_embedding_A", "lora_magnitude_vector")
