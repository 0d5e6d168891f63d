"""How a trainer's constructor takes what it took in older tutorials; the arguments themselves: `old_keywords`."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NoReturn, TypeVar, cast

from .config import TrellisConfig, adopt
from .old_keywords import ARGUMENTS, MOVED
from .old_names import closest, old_names, today

Build = TypeVar("Build", bound=Callable[..., None])


def takes_old_arguments(config: type[TrellisConfig]) -> Callable[[Build], Build]:
    """A constructor that also takes its trainer's `ARGUMENTS` and, as its own keywords, the `MOVED` fields of its config, as
    TRL's once did; a FutureWarning says where they go. Raises TypeError for any other unknown keyword, with the place or the
    name it should have.
    """

    def decorate(build: Build) -> Build:
        signature = inspect.signature(build)
        trainer = build.__qualname__.split(".")[0]

        @functools.wraps(build)
        def __init__(self: Any, *args: Any, **keywords: Any) -> None:
            old = {name: keywords.pop(name) for name in [*keywords] if name not in signature.parameters}
            if not old:
                return build(self, *args, **keywords)
            bound = signature.bind_partial(self, *args, **keywords)
            place(trainer, config, old, bound.arguments)
            return build(*bound.args, **bound.kwargs)

        return cast(Build, __init__)

    return decorate


def place(trainer: str, config: type[TrellisConfig], old: dict[str, Any], given: dict[str, Any]) -> None:
    """Put the `old` keywords where they go among the `given` ones."""
    owner = type(given["self"]).__name__
    found = {}
    for name, value in old.items():
        if name in ARGUMENTS[trainer]:
            entry = ARGUMENTS[trainer][name]
            if entry.new and given.get(entry.new) is not None:
                raise TypeError(f"{owner}: {name} is the old name of {entry.new}; give only one of them")
            replaced = today(owner, name, entry, value, show=False)
            given.update([replaced] if replaced else [])
        elif name in MOVED[trainer]:
            field = _field(config, name)
            found[name] = value
            _warn(
                f"{owner}: {name} is now a field of its config; write args={config.__name__}({field}={value!r})"
            )
        else:
            raise TypeError(_unknown(owner, config, name, value, given))
    if found:
        args = adopt(given.get("args"), config)
        values = {f.name: getattr(args, f.name) for f in fields(args) if f.init}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # said above, with the place
            given["args"] = config(**{**values, **_renamed(config, found)})


def _renamed(config: type[TrellisConfig], found: dict[str, Any]) -> dict[str, Any]:
    """`found` under today's names, as the config itself would read it."""
    table = old_names(config)
    read = [today(config.__name__, n, table[n], v) if n in table else (n, v) for n, v in found.items()]
    return dict(pair for pair in read if pair is not None)


def _field(config: type[TrellisConfig], name: str) -> str:
    entry = old_names(config).get(name)
    return name if entry is None or entry.new is None else entry.new


def _unknown(owner: str, config: type[TrellisConfig], name: str, value: Any, given: dict[str, Any]) -> str:
    if name in {f.name for f in fields(config)} | set(old_names(config)):
        field = _field(config, name)
        return f"{owner} takes no {name!r}: it is a field of its config; write args={config.__name__}({field}={value!r})"
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
