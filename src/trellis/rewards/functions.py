"""Python functions, plain or async, as rewards: each is called with what it declares."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from .request import Notes, RewardError, RewardRequest

OWN_ARGUMENTS = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")


class FunctionReward:
    """A reward function `f(prompts, completions, completion_ids, trainer_state, log_extra, log_metric, <column>, …, **kwargs)`.

    It may declare any of these; `**kwargs` receives all the rest. One that can do with one column of several says so in its
    attribute `one_of`. Raises TypeError when its signature cannot be read.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = function_name(function)
        self.is_async = any(map(inspect.iscoroutinefunction, (_innermost(function), type(function).__call__)))
        self.one_of: tuple[str, ...] = tuple(getattr(_innermost(function), "one_of", ()))
        try:
            parameters = inspect.signature(function).parameters.values()
        except ValueError as error:
            raise TypeError(
                f"the signature of reward {self.name!r} cannot be read; wrap it: def reward(completions): …"
            ) from error
        if any(p.kind is p.POSITIONAL_ONLY for p in parameters):
            raise TypeError(
                f"reward {self.name!r} takes positional-only arguments; declare them without the `/`"
            )
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self.takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self.declared = {p.name for p in named}
        self.required = [p.name for p in named if p.default is p.empty]

    def check(self, columns: Iterable[str]) -> None:
        """Raises RewardError when the function needs an argument that the data has no column for."""
        columns = sorted(set(columns) - set(OWN_ARGUMENTS))
        missing = [name for name in self.required if name not in (*OWN_ARGUMENTS, *columns)]
        if missing:
            raise RewardError(
                f"reward {self.name!r} needs the argument {missing[0]!r}, found the columns {columns}; expected one of "
                f"{[*OWN_ARGUMENTS, *columns]}. Rename the argument or the column, or give it a default"
            )
        if self.one_of and not set(self.one_of) & set(columns):
            raise RewardError(
                f"reward {self.name!r} needs a column {' or '.join(map(repr, self.one_of))}, found the columns {columns}; "
                f"rename the column that holds it: dataset.rename_column(…, {self.one_of[0]!r})"
            )

    def arguments(self, request: RewardRequest, notes: Notes) -> dict[str, Any]:
        """The keyword arguments of one call."""
        loggers = {"log_extra": notes.log_extra, "log_metric": notes.log_metric}
        offered = {**request.arguments(), **loggers}
        return offered if self.takes_all else {k: v for k, v in offered.items() if k in self.declared}

    def __call__(self, request: RewardRequest, notes: Notes) -> Any:
        """What the function returns (a coroutine, if it is async)."""
        return self.function(**self.arguments(request, notes))

    def abandon(self) -> None:
        """Nobody waits for its call any more: end what can be ended."""
        end = getattr(self.function, "abandon", None)
        if end is not None:
            end()


def function_name(function: Any) -> str:
    """`__name__`, of a partial its function's, of an object its class's."""
    function = _innermost(function)
    return getattr(function, "__name__", type(function).__name__)


def _innermost(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function
