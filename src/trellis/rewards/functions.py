"""Python functions, plain or async, as rewards: each is called with what it declares."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import Any

from .request import RewardError, RewardRequest

OWN_ARGUMENTS = ("prompts", "completions", "completion_ids", "trainer_state")


class FunctionReward:
    """A reward function `f(prompts, completions, completion_ids, trainer_state, <column>, …, **kwargs)`.

    It may declare any of these; `**kwargs` receives all the rest. Raises TypeError when its signature cannot be read.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = function_name(function)
        self.is_async = any(map(inspect.iscoroutinefunction, (_innermost(function), type(function).__call__)))
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

    def arguments(self, request: RewardRequest) -> dict[str, Any]:
        """The keyword arguments of one call."""
        self.check(request.columns)
        offered = request.arguments()
        return offered if self.takes_all else {k: v for k, v in offered.items() if k in self.declared}

    def __call__(self, request: RewardRequest) -> Any:
        """What the function returns (a coroutine, if it is async)."""
        return self.function(**self.arguments(request))


def function_name(function: Any) -> str:
    """`__name__`, of a partial its function's, of an object its class's."""
    function = _innermost(function)
    return getattr(function, "__name__", type(function).__name__)


def _innermost(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


class BackgroundLoop:
    """One event loop in a thread of its own, so that it also serves where a loop is already running (a notebook)."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        # The thread holds the loop only, not this object: when the object goes, the loop ends.
        threading.Thread(target=_serve, args=(self.loop,), daemon=True, name="trellis-rewards").start()
        weakref.finalize(self, self.loop.call_soon_threadsafe, self.loop.stop)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Begin `coroutine`; its result comes through the future."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
