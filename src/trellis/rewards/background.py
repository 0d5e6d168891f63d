"""Where rewards run that must not hold up the trainer: daemon threads, which the end of the process does not wait for."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

THREADS = 32
PATIENCE = 1.0
"""Seconds after which an event loop that does not answer counts as blocked."""


def in_thread(call: Callable[[], Any], name: str) -> Future[Any]:
    """Begin `call` in a thread of its own; what it returns, or raises of whatever kind, comes through the future."""
    future: Future[Any] = Future()
    inside = partial(contextvars.copy_context().run, call)
    threading.Thread(target=_run, args=(future, inside), daemon=True, name=f"trellis-reward-{name}").start()
    return future


def _run(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        returned = call()
    except BaseException as error:  # also SystemExit: it must end the trainer, not only this thread
        future.set_exception(error)
    else:
        future.set_result(returned)


Work = tuple[Future[Any], Callable[[], Any]]


class DaemonThreads(ThreadPoolExecutor):
    """What asyncio.to_thread runs in; unlike the executor it derives from, it does not keep the process from ending."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self._waiting: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._started = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begin `fn(*args, **kwargs)` when one of the threads is free."""
        future: Future[Any] = Future()
        self._waiting.put((future, lambda: fn(*args, **kwargs)))
        if self._started < THREADS:
            self._started += 1
            threading.Thread(target=_serve_queue, args=(self._waiting,), daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end when they have done what is waiting."""
        for _ in range(self._started):
            self._waiting.put(None)


def _serve_queue(waiting: queue.SimpleQueue[Work | None]) -> None:
    while (work := waiting.get()) is not None:
        _run(*work)


class BackgroundLoop:
    """One event loop in a thread of its own, so that it also serves where a loop is already running (a notebook)."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(DaemonThreads())
        # The thread holds the loop only, not this object: when the object goes, the loop ends.
        threading.Thread(target=_serve, args=(self.loop,), daemon=True, name="trellis-rewards").start()
        weakref.finalize(self, self.loop.call_soon_threadsafe, self.loop.stop)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Begin `coroutine`; its result comes through the future."""
        return asyncio.run_coroutine_threadsafe(_contained(coroutine), self.loop)

    def answers(self) -> bool:
        """The loop is not blocked by a coroutine that never awaits."""
        asked = asyncio.run_coroutine_threadsafe(_nothing(), self.loop)
        return bool(wait([asked], PATIENCE).done)


async def _nothing() -> None:
    """What a loop answers at once."""


class Escaped(Exception):
    """A coroutine raised what would have ended the loop; `__cause__` is it."""


async def _contained(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coroutine
    except (KeyboardInterrupt, SystemExit) as error:
        raise Escaped from error


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
