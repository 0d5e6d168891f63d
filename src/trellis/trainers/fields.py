"""Fields of configs with their help, and the decorator that makes a config of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform

from .old_names import translate

T = TypeVar("T", bound=type)


def option(default: Any, help: str, **metadata: Any) -> Any:
    """A dataclass field with its help string; `choices=(…)` restricts it, in code and on the command line."""
    metadata = {"help": help, **metadata}
    if isinstance(default, list | dict | set):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def switch(default: bool | None, help: str) -> Any:
    """A yes/no field that may be None (the machine decides); a bare `--name` means yes."""
    return option(default, help, nargs="?", const=True)


@dataclass_transform(field_specifiers=(option, switch, field))
def config(cls: T) -> T:
    """`@dataclass` whose constructor understands old names (`old_names`); a class's `renamed` adds its own."""
    annotated = [base.__dict__.get("__annotations__", {}) for base in cls.__mro__]
    types = [(name, str(t)) for table in annotated for name, t in table.items()]
    dataclass(repr=cls.__repr__ is object.__repr__)(cls)  # TrainingArguments' own repr hides tokens
    cls.json_fields = frozenset(n for n, t in types if "dict[" in t and "ClassVar" not in t)  # type: ignore[attr-defined]
    build = cls.__init__  # type: ignore[misc]

    @functools.wraps(build)
    def __init__(self: Any, *args: Any, **keywords: Any) -> None:
        build(self, *args, **translate(cls, keywords))

    cls.__init__ = __init__  # type: ignore[misc]
    return cls
