"""The training arguments as readable JSON without secrets, instead of a pickle with them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from enum import Enum
from pathlib import Path
from typing import Any

import torch

ARGS_FILE = "training_args.json"
REDACTED = "<redacted>"
SECRET_NAME = re.compile(r"token|secret|key|password", re.IGNORECASE)
TEXT_NAME = re.compile(r"(bos|eos|pad|unk|sep|cls|mask|stop|image)_token", re.IGNORECASE)
SECRET_TEXT = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bsk-[\w-]{16,}|\bgh[pousr]_\w{16,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


def write_args_json(directory: str | os.PathLike[str], args: Any) -> None:
    """Write a config (a dataclass or a mapping) as `training_args.json`, secrets redacted (see
    `redacted`)."""
    if dataclasses.is_dataclass(args) and not isinstance(args, type):
        args = _fields(args)
    with open(Path(directory) / ARGS_FILE, "w") as out:
        json.dump(redacted(args), out, indent=1, sort_keys=True)


def seal(directory: str | os.PathLike[str], args: Any) -> None:
    """Finish a directory that a model was saved in: its arguments as JSON, and weights that everybody may read
    who may read a plainly created file here (safetensors leaves its own at 0600)."""
    write_args_json(directory, args)
    mode = (Path(directory) / ARGS_FILE).stat().st_mode & 0o777
    for weights in [*Path(directory).glob("*.safetensors"), *Path(directory).glob("critic/*.safetensors")]:
        weights.chmod(mode)


def redacted(value: Any, name: str = "") -> Any:
    """`value` as JSON values: strings under a name with token, secret, key or password in it are replaced
    (the text of a special token such as eos_token is none), and so are access tokens inside any string; an
    object becomes its type's name."""
    if isinstance(value, Enum):
        return redacted(value.value, name)
    if isinstance(value, str | os.PathLike):
        return REDACTED if _is_secret(name, str(value)) else SECRET_TEXT.sub(REDACTED, str(value))
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = _fields(value)
    if isinstance(value, dict):
        return {str(k): redacted(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(v, name) for v in value]
    kind = value if isinstance(value, type) else type(value)
    return f"<{kind.__module__}.{kind.__qualname__}>"


def _is_secret(name: str, text: str) -> bool:
    return bool(text) and bool(SECRET_NAME.search(name)) and not TEXT_NAME.fullmatch(name)


def _fields(config: Any) -> dict[str, Any]:
    return {f.name: getattr(config, f.name, None) for f in dataclasses.fields(config)}
