"""Where a value head lies on disk: `v_head.summary.weight` and `.bias` among a model's own tensors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PREFIX = "v_head."
SAFE, OLD = "model.safetensors", "pytorch_model.bin"
_HUB_KWARGS = ("revision", "token", "cache_dir", "local_files_only", "subfolder")


def read_head(name: str | os.PathLike, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """The head's tensors (`summary.weight`, `summary.bias`) in the directory or repository `name`; empty where there are none.

    Files of one piece and of several are read, safetensors before pickles, of which tensors only are unpickled.
    """
    options = {key: value for key, value in options.items() if key in _HUB_KWARGS}
    for file in (SAFE, OLD):
        found: dict[str, Tensor] = {}
        for path in _pieces(name, file, options):
            found |= _tensors(path)
        if found:
            return {key.removeprefix(PREFIX): tensor for key, tensor in found.items()}
    return {}


def _find(name: str | os.PathLike, file: str, options: Mapping[str, Any]) -> Path | None:
    path = Path(os.fspath(name)).expanduser()
    if path.is_dir():
        return path / file if (path / file).is_file() else None
    from transformers.utils import cached_file

    missing = dict.fromkeys(
        [f"_raise_exceptions_for_{what}" for what in ("missing_entries", "connection_errors", "gated_repo")],
        False,
    )
    found = cached_file(os.fspath(name), file, **options, **missing)
    return None if found is None else Path(found)


def _pieces(name: str | os.PathLike, file: str, options: Mapping[str, Any]) -> list[Path]:
    """The files that hold the head, if any does."""
    whole = _find(name, file, options)
    if whole is not None:
        return [whole]
    index = _find(name, f"{file}.index.json", options)
    if index is None:
        return []
    places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    found = [
        _find(name, piece, options)
        for piece in sorted({at for key, at in places.items() if key.startswith(PREFIX)})
    ]
    return [path for path in found if path is not None]


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".bin":
        content = torch.load(path, map_location="cpu", weights_only=True)
        return {key: tensor for key, tensor in content.items() if key.startswith(PREFIX)}
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys() if key.startswith(PREFIX)}  # noqa: SIM118


def write_head(directory: Path, head: Mapping[str, Tensor]) -> None:
    """Add the tensors `head` to the weights that lie in `directory`, whole or in pieces; alone where there are none."""
    from safetensors.torch import load_file, save_file

    index = directory / f"{SAFE}.index.json"
    path, kept = directory / SAFE, {}
    if index.is_file():
        content = json.loads(index.read_text(encoding="utf-8"))
        path = directory / sorted(set(content["weight_map"].values()))[-1]
        content["weight_map"] |= dict.fromkeys(head, path.name)
        size = sum(tensor.numel() * tensor.element_size() for tensor in head.values())
        content["metadata"]["total_size"] = content.get("metadata", {}).get("total_size", 0) + size
        index.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if path.is_file():
        kept = load_file(path)
    save_file({**kept, **head}, path, metadata={"format": "pt"})
