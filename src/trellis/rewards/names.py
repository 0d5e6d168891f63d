"""What a text in `reward_funcs` means: a ready reward, a function of some module, or a classifier."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import os
import re
import sys
from pathlib import Path
from typing import Any

from .library import READY_REWARDS

_CALL = re.compile(r"(?P<name>\w+)\s*(?P<arguments>\(.*\))?", re.DOTALL)
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def named(spec: str) -> Any:
    """The function that `spec` names: `accuracy`, `cosine_scaled(max_len=512)`, `package.module.function`; anything else is left
    as it is, the name or path of a classifier. Raises ValueError for what is meant as a function and is none.
    """
    if os.path.exists(os.path.expanduser(spec)):
        return spec
    call = _CALL.fullmatch(spec.strip())
    ready = call and _short(call["name"])
    if call and ready in READY_REWARDS:
        return _ready(ready, call["arguments"])
    if _DOTTED.fullmatch(spec) and _can_be_imported(spec):
        return imported(spec)
    near = difflib.get_close_matches(ready, READY_REWARDS, n=1, cutoff=0.75) if ready else []
    if near or (call and call["arguments"]):
        meant = f". Did you mean {near[0]!r}?" if near else "."
        raise ValueError(
            f"reward {spec!r} is no ready reward, no path and no function{meant} Ready ones: {', '.join(READY_REWARDS)}. A "
            "function of yours is package.module.function"
        )
    return spec


def _short(name: str) -> str:
    return name.removeprefix("get_").removesuffix("_reward")


def _ready(name: str, arguments: str | None) -> Any:
    made = READY_REWARDS[name]
    if not made.__name__.startswith("get_"):
        if arguments not in (None, "()"):
            raise ValueError(
                f"reward {name + (arguments or '')!r}: {name} takes no arguments; write {name!r}"
            )
        return made
    try:
        parsed: Any = ast.parse(f"f{arguments or '()'}", mode="eval").body
        if parsed.args:
            raise TypeError("arguments are given by name")
        return made(**{keyword.arg: ast.literal_eval(keyword.value) for keyword in parsed.keywords})
    except (SyntaxError, TypeError, ValueError) as error:
        wanted = ", ".join(
            f"{p.name}={'…' if p.default is p.empty else p.default}"
            for p in inspect.signature(made).parameters.values()
        )
        raise ValueError(
            f"reward {name + (arguments or '')!r}: {error}; expected {name}({wanted})"
        ) from error


def _can_be_imported(spec: str) -> bool:
    """There is such a module, here or among the installed ones; else `spec` is a classifier's name with a dot in it."""
    root = spec.partition(".")[0]
    if importlib.util.find_spec(root) is None:
        if not (Path(f"{root}.py").is_file() or Path(root).is_dir()):
            return False
        sys.path.append(os.getcwd())  # an installed command does not look there by itself
        importlib.invalidate_caches()
    return True


def imported(spec: str) -> Any:
    """The function `package.module.function`. Raises ValueError when there is none."""
    place, _, name = spec.rpartition(".")
    try:
        _can_be_imported(spec)
        found = getattr(importlib.import_module(place), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"reward {spec!r}: {error}; expected package.module.function") from error
    if not callable(found):
        raise ValueError(f"reward {spec!r} is {type(found).__name__}; expected a function")
    return found
