"""A saved adapter is opened again and compared with the one in memory: an empty or stale file costs a whole run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .adapters import adapter_parameters, is_peft
from .critic import ActorCritic
from .modules import unwrap

WEIGHTS = "adapter_model.safetensors"
SETTINGS = "adapter_config.json"


def check_saved(model: nn.Module, folder: Path, state: dict[str, Tensor] | None = None) -> list[str]:
    """Read back every adapter that `model` was saved with in `folder`; returns what its owner should know, as sentences.

    `state`: the tensors that were written, where they had to be gathered first. Raises RuntimeError when a file is missing, empty
    or differs from memory.
    """
    model = unwrap(model)
    places: list[tuple[Any, Path, Any]] = [(model, folder, state)]
    if isinstance(model, ActorCritic):
        policy, critic = model.split(state)
        places = [(model.policy, folder, policy), (model.value_model, folder / "critic", critic)]
    notes = []
    for part, place, written in places:
        for name in part.peft_config if is_peft(part) else ():
            notes += _check_adapter(part, name, place if name == "default" else place / name, written or {})
    return notes


def _check_adapter(model: Any, name: str, place: Path, state: dict[str, Tensor]) -> list[str]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(place / WEIGHTS)
        settings = json.loads((place / SETTINGS).read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise _unusable(place, f"{type(error).__name__}: {error}") from error
    empty = [key for key, x in found.items() if not x.numel()]
    if empty or not found:
        raise _unusable(place, f"{empty[0]} has no numbers" if empty else "it holds no tensors")
    if "LORA" in str(model.peft_config[name].peft_type):  # others are saved in forms of their own
        for path, parameter in adapter_parameters(model, name).items():
            problem = _problem(found.get(_key(path, name)), parameter, state.get(path))
            if problem:
                raise _unusable(place, f"{path} {problem}")
    if settings.get("base_model_name_or_path"):
        return []
    return [
        "the saved adapter names no base model, as the base was not loaded from a directory or the hub: save the base too, and "
        "open both with PeftModel.from_pretrained(base, directory)"
    ]


def _problem(found: Tensor | None, parameter: Any, written: Tensor | None) -> str:
    """What is wrong with a parameter's tensor in the file, empty where nothing is; of one in pieces the shape is checked."""
    if found is None:
        return "is not in it"
    shape = getattr(parameter, "ds_shape", parameter.shape)
    if found.shape != shape:
        return f"has shape {list(found.shape)} there, expected {list(shape)}"
    in_pieces = hasattr(parameter, "ds_id") or hasattr(parameter, "placements")
    want = parameter.detach() if written is None and not in_pieces else written
    if want is None or torch.equal(found, want.to(found.device)):
        return ""
    return "has other numbers there than in memory"


def _key(path: str, name: str) -> str:
    """A parameter's name in an adapter file, which knows neither the adapter's name nor peft's wrappers."""
    key = ".".join(part for part in path.split(".") if part not in (name, "modules_to_save"))
    return key.removesuffix(".weight") if key.endswith("lora_magnitude_vector.weight") else key


def _unusable(place: Path, reason: str) -> RuntimeError:
    return RuntimeError(
        f"the adapter saved in {place} is not the one in memory: {reason}. Nothing that was saved before is touched; save again "
        "(trainer.save_model(another directory)), and look at what gathers or writes the weights"
    )
