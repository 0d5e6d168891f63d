"""The other side of `isolated`: a process that holds one reward function and answers calls until its trainer is gone.

What it sends is JSON, never a pickle: the trainer takes numbers and texts from it, no code.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import pickle
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from numbers import Real
from typing import Any

from .blame import story
from .functions import function_name
from .names import imported
from .request import Notes

LOOK = 1.0
"""Seconds between two looks at whether the trainer is still there."""


def serve(handle: int, parent: int) -> None:
    """Answer calls that come through the connection `handle` until it ends, or the process `parent` does."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    connection = Connection(handle)
    try:
        function = _load(connection.recv())
    except Exception as error:  # whatever loading somebody's module raises is an answer
        _send(connection, {"failed": story(error)})
        return
    about = {"name": function_name(function), "one_of": list(getattr(function, "one_of", ()))}
    _send(connection, about | {"takes": _parameters(function)})
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        _send(connection, _answer(function, name, arguments))


def _end_with(parent: int) -> None:
    waiting = threading.Event()
    while os.getppid() == parent:
        waiting.wait(LOOK)
    os.killpg(0, signal.SIGKILL)


def _load(asked: dict[str, Any]) -> Callable[..., Any]:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if asked["memory_mb"]:
        limit = asked["memory_mb"] << 20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if asked["dotted"] is None:
        return pickle.loads(asked["pickled"])
    return imported(asked["dotted"])


def _parameters(function: Callable[..., Any]) -> list[tuple[str, int, bool]]:
    """(name, kind, has a default) of each."""
    found = inspect.signature(function).parameters.values()
    return [(p.name, int(p.kind), p.default is not p.empty) for p in found]


def _answer(function: Callable[..., Any], name: str, arguments: bytes) -> dict[str, Any]:
    try:
        given, loggers = pickle.loads(arguments)
        notes = Notes(name)
        given |= {logger: getattr(notes, logger) for logger in loggers}
        returned = function(**given)
        if inspect.iscoroutine(returned):
            returned = asyncio.run(returned)
        return {"returned": _plain(returned), "extra": notes.extra, "logged": notes.logged}
    except Exception as error:  # named in the trainer, with the line it came from
        return {"failed": story(error)}


def _plain(value: Any) -> Any:
    """Numbers, None and lists as they are; anything else as a text that says what it was."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    return float(value) if isinstance(value, Real) else repr(value)


def _send(connection: Connection, answer: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(answer, default=str).encode())
