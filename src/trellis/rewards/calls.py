"""How rewards are run: async functions together, none of them longer than the time there is."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Any

import torch

from .background import BackgroundLoop, Escaped, in_thread
from .blame import story
from .classifiers import ClassifierReward
from .functions import FunctionReward
from .request import Notes, RewardError, RewardRequest

Reward = FunctionReward | ClassifierReward
HANGING = 8
"""Calls of one function that may hang at a time; a thread cannot be ended from outside."""


class Calls:
    """Calls rewards. `timeout`: seconds that each call of a function may take (None: any time); it then runs in a daemon thread,
    so that neither the trainer nor the end of the process waits for one that hangs."""

    def __init__(self, members: Sequence[Reward], names: Sequence[str], timeout: float | None = None) -> None:
        self.members, self.names, self.timeout = members, names, timeout
        self._loop: BackgroundLoop | None = None
        self._hanging: dict[int, list[Future[Any]]] = {}

    def __call__(self, request: RewardRequest, notes: Sequence[Notes], *, stop: bool) -> list[Any]:
        """What each reward returned, or the RewardError that it ended with; with `stop`, the first of these is raised."""
        started: dict[int, tuple[Future[Any], float]] = {}
        returned: list[Any] = [None] * len(self.members)

        def guarded(i: int, call: Callable[[], Any]) -> Any:
            found = self._guarded(i, request, call)
            if stop and isinstance(found, RewardError):
                raise found
            return found

        try:
            asynchronous = [i for i, reward in enumerate(self.members) if reward.is_async]
            others = [i for i in range(len(self.members)) if i not in asynchronous]
            for i in asynchronous + others:
                begin = self._coroutine if i in asynchronous else self._plain
                returned[i] = guarded(i, partial(begin, i, request, notes[i]))
                if inspect.iscoroutine(returned[i]):  # or of a plain function that hands on an async one's
                    started[i] = self._loop_for_async().start(returned[i]), self._deadline()
            for i, (future, deadline) in started.items():
                returned[i] = guarded(i, partial(self._awaited, i, future, deadline))
        finally:
            self._clean([future for future, _ in started.values()])
        return returned

    def _coroutine(self, i: int, request: RewardRequest, notes: Notes) -> Any:
        return self.members[i](request, notes)

    def _plain(self, i: int, request: RewardRequest, notes: Notes) -> Any:
        reward = self.members[i]
        if self.timeout is None or not isinstance(reward, FunctionReward):
            return reward(request, notes)
        hanging = [future for future in self._hanging.get(i, ()) if not future.done()]
        self._hanging[i] = hanging
        if len(hanging) >= HANGING:
            raise RewardError(
                f"reward {self.names[i]!r}: {HANGING} calls of it still hang, no other is started; give it a time limit of its "
                "own, or isolate it"
            )
        future = in_thread(_on_same_device(lambda: reward(request, notes)), self.names[i])
        hanging.append(future)
        return self._awaited(i, future, self._deadline())

    def _deadline(self) -> float:
        return time.monotonic() + (self.timeout or 0.0)

    def _awaited(self, i: int, future: Future[Any], deadline: float) -> Any:
        left = None if self.timeout is None else max(0.0, deadline - time.monotonic())
        if wait([future], left).done:
            return future.result()
        future.cancel()
        reward = self.members[i]
        if isinstance(reward, FunctionReward):
            reward.abandon()
        raise RewardError(
            f"reward {self.names[i]!r} has not answered within {self.timeout:g} s; make it faster, or give it more time "
            "(reward_timeout)"
        )

    def _loop_for_async(self) -> BackgroundLoop:
        if self._loop is None:
            self._loop = BackgroundLoop()
        return self._loop

    def _clean(self, futures: Sequence[Future[Any]]) -> None:
        overdue = [future for future in futures if not future.done() or future.cancelled()]
        for future in overdue:
            future.cancel()
        if overdue and self._loop is not None and not self._loop.answers():
            self._loop = None  # blocked by a coroutine that never awaits: the next call gets a new one

    def _guarded(self, i: int, request: RewardRequest, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except RewardError as error:
            return error
        except Escaped as error:
            raise error.__cause__ or error from None
        except Exception as error:
            return self._raised(i, request, error)

    def _raised(self, i: int, request: RewardRequest, error: Exception) -> RewardError:
        what = f"{len(request)} completions" + (
            f", the first is {request.excerpt(0)}" if len(request) else ""
        )
        failure = RewardError(
            f"reward {self.names[i]!r} raised {story(error)} (on {what}; columns {sorted(request.columns)})"
        )
        failure.__cause__ = error
        return failure


def _on_same_device(call: Callable[[], Any]) -> Callable[[], Any]:
    """`call`, with this thread's current GPU: a thread begins with the first one."""
    if not torch.cuda.is_initialized():
        return call
    device = torch.cuda.current_device()

    def inside() -> Any:
        torch.cuda.set_device(device)
        return call()

    return inside
