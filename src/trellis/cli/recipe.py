"""Recipes: YAML read strictly, and whether a value can be what a field holds."""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import yaml

SPEAKS_TRUE = ("resume_from_checkpoint",)
"""Fields for text in which true has a meaning of its own."""


class Strict(yaml.SafeLoader):
    """The safe loader, for which a name that occurs twice in a mapping is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the name {key.value!r} occurs twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def strict_yaml(text: str) -> Any:
    """The value that YAML `text` describes. Raises ValueError for what is none."""
    try:
        return Strict(text).get_single_data()
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def read_recipe(path: str) -> dict[str, Any]:
    """The recipe at `path`. Raises ValueError where it cannot be read or is no `name: value` lines."""
    try:
        content = strict_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"--config {path}: {error}") from error
    if content is not None and not isinstance(content, dict):
        raise ValueError(f"--config {path}: expected `name: value` lines, found a {type(content).__name__}")
    return content or {}


def apply_env(path: str, block: Any) -> None:
    """Set the environment variables of a recipe's `env:` block. Raises ValueError for what can be none."""
    if block is not None and not isinstance(block, dict):
        raise ValueError(f"{path}: env must be `NAME: value` lines, found a {type(block).__name__}")
    for name, value in (block or {}).items():
        if not isinstance(name, str) or isinstance(value, list | dict | set | bytes | NoneType):
            raise ValueError(f"{path}: env {name!r}: expected a text or a number, found {value!r}")
        try:
            os.environ[name] = str(value)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: env {name!r} can be no environment variable: {error}") from error


def kinds_of(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a type hint: `int | None` → (int, NoneType)."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def misfit(name: str, value: Any, hint: Any) -> str | None:
    """Why a recipe's value cannot be what a field holds; None where it can, or where the field's own flag will say."""
    kinds = kinds_of(hint)
    plain = {get_origin(kind) or kind for kind in kinds}
    if Any in plain:
        return None
    wanted = " or ".join(sorted(getattr(kind, "__name__", str(kind)) for kind in plain))
    found = f"{name}: expected {wanted}, found {type(value).__name__} {value!r}"[:200]
    if isinstance(value, Mapping):
        return None if dict in plain else found
    if isinstance(value, list):
        return _list_misfit(name, value, kinds, found)
    if isinstance(value, bool):
        quoted = f"; write it in quotes if text is meant: {name}: '{str(value).lower()}'"
        text = str in plain or any(str in get_args(kind) for kind in kinds)
        meant = bool in plain or not text or name in SPEAKS_TRUE
        return None if meant else found + quoted
    return None if isinstance(value, str | int | float | datetime.date | NoneType) else found


def _list_misfit(name: str, value: Sequence[Any], kinds: Sequence[Any], found: str) -> str | None:
    lists = [kind for kind in kinds if (get_origin(kind) or kind) in (list, tuple)]
    if not lists:
        return found
    parts = [part for kind in lists for part in get_args(kind)]
    records = any(dataclasses.is_dataclass(part) for part in parts)
    for entry in value:
        if records and isinstance(entry, dict):
            continue
        truth = isinstance(entry, bool) and parts and bool not in parts
        if truth or not isinstance(entry, str | int | float | datetime.date):
            return f"{name}: an entry of the list is {type(entry).__name__} {entry!r}"[:200]
    return None
