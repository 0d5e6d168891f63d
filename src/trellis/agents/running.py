"""Running what models and environments ask for: async calls together, plain ones in their order, none longer than it may."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from ..rewards.background import BackgroundLoop, in_thread
from .tools import Answer, Request, failure, said

GRACE = 1.0
"""Seconds after its time in which an async call may notice that it was cancelled."""


class Runner:
    """Answers calls. An exception or more than `timeout` seconds (None: no limit) is an answer that the model can read.

    Python cannot stop a plain function: one that takes too long goes on in a thread of its own, and nobody waits for it.
    """

    def __init__(self, timeout: float | None = None) -> None:
        if timeout is not None and not (timeout > 0 and math.isfinite(timeout)):
            raise ValueError(
                f"a tool's time-out must be a number of seconds above 0, or None, found {timeout}"
            )
        self.timeout = timeout
        self._background: BackgroundLoop | None = None

    @property
    def background(self) -> BackgroundLoop:
        """Where async calls run: one event loop for the whole run, so that clients may stay open."""
        self._background = self._background or BackgroundLoop()
        return self._background

    def answers(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer per request. Async calls run together; those on one environment, its plain methods among them, in order."""
        found = [request.refusal() for request in requests]
        asked = [i for i, answer in enumerate(found) if answer is None]
        waiting = {id(requests[i].environment) for i in asked if _on_environment(requests[i], awaited=True)}
        chains: dict[tuple[str, int], list[int]] = {}
        plain = []
        for i in asked:
            request = requests[i]
            if _on_environment(request) and id(request.environment) in waiting:
                chains.setdefault(("on", id(request.environment)), []).append(i)
            elif request.tools[request.call.name].is_async:
                chains[("call", i)] = [i]
            else:
                plain.append(i)
        started = [
            (chain, self.background.start(self._in_order([requests[i] for i in chain])))
            for chain in chains.values()
        ]
        for i in plain:
            found[i] = self._plain(requests[i])
        for chain, future in started:
            for i, answer in zip(chain, self._wait(future, len(chain)), strict=True):
                found[i] = answer
        return [answer for answer in found if answer is not None]

    def together(self, values: Sequence[Any]) -> list[Any]:
        """The values, with what has to be awaited awaited, all at once."""
        started = [
            self.background.start(_awaited(value)) if inspect.isawaitable(value) else value
            for value in values
        ]
        return [value.result() if isinstance(value, Future) else value for value in started]

    async def _in_order(self, requests: Sequence[Request]) -> list[Answer]:
        return [await self._one(request) for request in requests]

    async def _one(self, request: Request) -> Answer:
        call = partial(request.function, **_arguments(request))
        try:
            # A plain method among async ones: in a thread, as it would hold up everything that runs on the loop.
            is_async = request.tools[request.call.name].is_async
            answer = call() if is_async else asyncio.wrap_future(in_thread(call, request.call.name))
            return said(await asyncio.wait_for(answer, timeout=self.timeout))
        except Exception as error:
            return self._failed(request, error)

    def _wait(self, future: Future[list[Answer]], count: int) -> list[Answer]:
        """A chain's answers; one that holds up the loop itself is left to it, and the next calls get a new loop."""
        limit = None if self.timeout is None else count * self.timeout + GRACE
        try:
            return future.result(limit)
        except TimeoutError:
            self._background = None
            return [failure(f"no answer after {self.timeout} seconds")] * count

    def _plain(self, request: Request) -> Answer:
        try:
            if self.timeout is None:
                return said(request.function(**_arguments(request)))
            call = partial(request.function, **_arguments(request))
            return said(in_thread(call, request.call.name).result(self.timeout))
        except Exception as error:
            return self._failed(request, error)

    def _failed(self, request: Request, error: Exception) -> Answer:
        if isinstance(error, TimeoutError) and self.timeout is not None and not str(error):
            return failure(f"{request.call.name} did not answer within {self.timeout} seconds")
        return failure(f"{type(error).__name__}: {error}")


def _on_environment(request: Request, awaited: bool = False) -> bool:
    tool = request.tools[request.call.name]
    return tool.method and (tool.is_async or not awaited)


def _arguments(request: Request) -> dict[str, Any]:
    assert isinstance(request.call.arguments, dict)  # a text was refused before
    return request.call.arguments


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value
