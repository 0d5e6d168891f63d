"""What trainers' constructors took in older tutorials, and where each goes today."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any, NoReturn, TypeVar, cast

from .config import TrellisConfig, adopt
from .old_names import closest, old_names

Build = TypeVar("Build", bound=Callable[..., None])
NEEDLESS = ("num_of_sequences", "chars_per_token", "dataset_batch_size")


def takes_old_arguments(config: type[TrellisConfig], *moved: str) -> Callable[[Build], Build]:
    """A constructor that also takes `tokenizer` and, as its own keywords, the `moved` fields of its config, as TRL's once did; a
    FutureWarning says where they go. Raises TypeError for any other unknown keyword, with the place or the name it should have.
    """

    def decorate(build: Build) -> Build:
        signature = inspect.signature(build)

        @functools.wraps(build)
        def __init__(self: Any, *args: Any, **keywords: Any) -> None:
            old = {name: keywords.pop(name) for name in [*keywords] if name not in signature.parameters}
            if not old:
                return build(self, *args, **keywords)
            bound = signature.bind_partial(self, *args, **keywords)
            _place(type(self).__name__, config, moved, old, bound.arguments)
            return build(*bound.args, **bound.kwargs)

        return cast(Build, __init__)

    return decorate


def _place(
    owner: str,
    config: type[TrellisConfig],
    moved: Iterable[str],
    old: dict[str, Any],
    given: dict[str, Any],
) -> None:
    """Put the `old` keywords where they go among the `given` ones."""
    found = {}
    for name, value in old.items():
        if name == "tokenizer":
            if given.get("processing_class") is not None:
                raise TypeError(
                    f"{owner}: tokenizer is the old name of processing_class; give only one of them"
                )
            given["processing_class"] = value
            _warn(f"{owner}: tokenizer is now processing_class")
        elif name in NEEDLESS:
            _warn(f"{owner}: {name} is no longer needed and does nothing")
        elif name in moved:
            today = _today(config, name)
            found[today] = value
            _warn(
                f"{owner}: {name} is now a field of its config; write args={config.__name__}({today}={value!r})"
            )
        else:
            raise TypeError(_unknown(owner, config, name, value, given))
    if found:
        args = adopt(given.get("args"), config)
        values = {f.name: getattr(args, f.name) for f in fields(args) if f.init}
        given["args"] = config(**{**values, **found})


def _today(config: type[TrellisConfig], name: str) -> str:
    entry = old_names(config).get(name)
    return name if entry is None or entry.new is None else entry.new


def _unknown(owner: str, config: type[TrellisConfig], name: str, value: Any, given: dict[str, Any]) -> str:
    if name in {f.name for f in fields(config)} | set(old_names(config)):
        today = _today(config, name)
        return f"{owner} takes no {name!r}: it is a field of its config; write args={config.__name__}({today}={value!r})"
    known = [*inspect.signature(given["self"].__class__.__init__).parameters][1:]
    return f"{owner} takes no {name!r}{closest(name, known)}; it takes {', '.join(known)}"


def _warn(message: str) -> None:
    warnings.warn(message, FutureWarning, stacklevel=4)


def gone(name: str, instead: str) -> Callable[..., NoReturn]:
    """A method that used to exist: calling it raises AttributeError that says what to write `instead`."""

    def method(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name}() is gone: {instead}")

    method.__name__, method.__doc__ = name, f"Gone since TRL 0.12: {instead}."
    return method
