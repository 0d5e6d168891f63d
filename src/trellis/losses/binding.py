"""How a filed loss gets the values of its keyword-only arguments: by name, once, at construction."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

Returned = TypeVar("Returned")


def knobs_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's keyword-only arguments."""
    return tuple(p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY)


def bound(
    function: Callable[..., Returned], fields: Mapping[str, Any], owner: str
) -> Callable[..., Returned]:
    """`function` with its knobs taken from `fields`; one with a default may be missing there. Raises ValueError for any other."""
    parameters = inspect.signature(function).parameters
    missing = [
        k for k in knobs_of(function) if k not in fields and parameters[k].default is inspect.Parameter.empty
    ]
    if missing:
        raise ValueError(
            f"{owner} takes {missing}, which the config does not have; give {missing[0]} a default"
        )
    return partial(function, **{k: fields[k] for k in knobs_of(function) if k in fields})
