"""A trainer's own state (rollout buffer, meters, controllers) as tensors and plain values: safetensors and
JSON, no pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def save_state(
    directory: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    plain: Mapping[str, Any],
    *,
    name: str = "trellis_state",
) -> None:
    """Write `<name>.safetensors` and `<name>.json` below `directory`; both come back from `load_state` to
    the bit.

    Raises TypeError, naming the entry, for a plain value that JSON would change or cannot hold.
    """
    for key, value in plain.items():
        _check_plain(value, key)
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    save_file(_owned(tensors), root / f"{name}.safetensors")
    with open(root / f"{name}.json", "w") as out:
        json.dump(dict(plain), out)


def load_state(
    directory: str | os.PathLike[str], *, name: str = "trellis_state"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The (tensors, plain) of `save_state`, tensors on the CPU. Raises ValueError when the files are not
    there."""
    root = Path(directory)
    paths = root / f"{name}.safetensors", root / f"{name}.json"
    missing = [p.name for p in paths if not p.is_file()]
    if missing:
        raise ValueError(f"{root} has no {' and no '.join(missing)}; not a checkpoint of this trainer")
    return load_file(paths[0]), json.loads(paths[1].read_text())


def check_loaded(model: nn.Module, missing: Sequence[str], unexpected: Sequence[str]) -> None:
    """Raises ValueError unless loading left no weight of `model` untouched and none over. A missing name that shares
    its memory with one that was loaded (tied embeddings are stored once) is not missing."""
    weights = model.state_dict()
    loaded = {weight.data_ptr() for name, weight in weights.items() if name not in set(missing)}
    absent = [name for name in missing if weights[name].data_ptr() not in loaded]
    if absent or unexpected:
        raise ValueError(
            f"the checkpoint is of another model: it lacks {absent or 'nothing'} and has {unexpected or 'nothing'} "
            "too many; resume with the model that the run started from"
        )


def _owned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses tensors that share memory, and would write a view's whole storage.
    owned, seen = {}, set()
    for key, value in tensors.items():
        value = value.detach().cpu().contiguous()
        if value.untyped_storage().data_ptr() in seen:
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        owned[key] = value
    return owned


def _check_plain(value: Any, where: str) -> None:
    if value is None or type(value) in (bool, int, float, str):
        return
    if type(value) is list:
        for i, item in enumerate(value):
            _check_plain(item, f"{where}[{i}]")
        return
    if type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(f"{where} has the key {key!r}; JSON keys are strings: write str(key)")
            _check_plain(item, f"{where}[{key!r}]")
        return
    raise TypeError(f"{where} is a {type(value).__name__}; expected JSON values, lists and dicts")
