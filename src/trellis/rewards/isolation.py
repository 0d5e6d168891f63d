"""A reward function in a process of its own: what happens to that process does not happen to the trainer."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any

from ..engines.process import ending
from .request import RewardError

START = 300.0
"""Seconds that importing the function's module may take."""
SLICE = 0.05
"""Seconds between two looks at whether the process is still there."""
_LOGGERS = ("log_extra", "log_metric")
_COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from trellis.rewards.child import serve; "
    "serve(int(sys.argv[2]), int(sys.argv[3]))"
)


def isolated(
    function: Callable[..., Any] | str, *, timeout: float | None = None, memory_mb: int | None = None
) -> Isolated:
    """`function` (one that a module defines, or its dotted name), run in a process of its own that lives between calls.

    A crash, an exit, a call of more than `timeout` seconds or (Linux) more than `memory_mb` MiB of address space is a RewardError
    of that call; the next call gets a new process. The process has the user's rights: this contains accidents, not malice.
    Raises ValueError when the function cannot be loaded there.
    """
    return Isolated(function, timeout, memory_mb)


class Isolated:
    """See `isolated`. It takes the arguments that the function takes, and returns what it returns, as numbers and lists."""

    def __init__(
        self, function: Callable[..., Any] | str, timeout: float | None, memory_mb: int | None
    ) -> None:
        self.timeout = timeout
        dotted, pickled = (function, None) if isinstance(function, str) else (None, _pickled(function))
        self._asked = {"dotted": dotted, "pickled": pickled, "memory_mb": memory_mb}
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self.__name__ = function if isinstance(function, str) else getattr(function, "__name__", "isolated")
        about = self._alive().about
        self.__name__, self.one_of = about["name"], tuple(about["one_of"])
        self.__signature__ = _signature(about["takes"])

    def __call__(self, **arguments: Any) -> Any:
        """The function's answer. Raises RewardError when there is none."""
        loggers = {name: arguments.pop(name) for name in _LOGGERS if arguments.get(name) is not None}
        sent = self._sendable(arguments, list(loggers))
        with self._lock:
            process = self._alive()
            try:
                answer = process.ask(self.__name__, sent, self.timeout)
            except BaseException:
                self._process = None  # also when interrupted: an answer that comes late would be taken for the next call's
                process.end()
                raise
        if "failed" in answer:
            raise RewardError(f"reward {self.__name__!r} raised {answer['failed']}, in its own process")
        for column, values in answer["extra"].items():
            loggers["log_extra"](column, values)
        for name, values in answer["logged"].items():
            for value in values:
                loggers["log_metric"](name, value)
        return answer["returned"]

    def abandon(self) -> None:
        """End the process, and with it the call that is running."""
        process = self._process
        if process is not None:
            process.end()

    close = abandon

    def _alive(self) -> _Process:
        if self._process is None or not self._process.lives():
            self._process = _Process(self._asked, self.__name__)
        return self._process

    def _sendable(self, arguments: dict[str, Any], loggers: list[str]) -> bytes:
        if "trainer_state" in arguments:
            arguments["trainer_state"] = _plain_state(arguments["trainer_state"])
        try:
            return pickle.dumps((arguments, loggers))
        except Exception as error:
            bad = [name for name, value in arguments.items() if not _can_pickle(value)]
            raise RewardError(
                f"reward {self.__name__!r} is isolated, and its argument {(bad or list(arguments))[0]!r} cannot be sent to "
                f"another process ({error}); declare only what it reads, without **kwargs, or do not isolate it"
            ) from error


class _Process:
    """One process and the connection to it."""

    def __init__(self, asked: dict[str, Any], name: str) -> None:
        self.name = name
        self.connection, theirs = Pipe()
        paths = json.dumps([os.path.abspath(path) for path in sys.path])
        command = [sys.executable, "-c", _COMMAND, paths, str(theirs.fileno()), str(os.getpid())]
        # A session of its own: what it forks is ended with it, and a Ctrl-C is the trainer's alone.
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
        )
        theirs.close()
        self.end = weakref.finalize(self, _end, self.process, self.connection, os.getpid())
        try:
            self.connection.send(asked)
            self.about = self._received(START)
        except (RewardError, OSError) as error:
            self.end()
            raise ValueError(f"the process of reward {name!r} did not start: {error}") from error
        if "failed" in self.about:
            self.end()
            raise ValueError(
                f"reward {name!r} cannot be loaded in a process of its own: {self.about['failed']}; expected a function at the "
                "top level of a module that can be imported, or its dotted name"
            )

    def lives(self) -> bool:
        return self.end.alive and self.process.poll() is None

    def ask(self, name: str, sent: bytes, timeout: float | None) -> dict[str, Any]:
        """The answer to one call. Raises RewardError when the process ends, or takes too long."""
        try:
            self.connection.send((name, sent))
        except OSError:  # it has just ended; waiting for its answer says how
            pass
        return self._received(timeout)

    def _received(self, timeout: float | None) -> dict[str, Any]:
        overdue = None if timeout is None else time.monotonic() + timeout
        try:
            while not self.connection.poll(SLICE):
                if self.process.poll() is not None and not self.connection.poll(0):
                    raise EOFError
                if overdue is not None and time.monotonic() > overdue:
                    raise RewardError(
                        f"reward {self.name!r} has not answered within {timeout:g} s; its process was ended"
                    )
            return json.loads(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise RewardError(
                f"reward {self.name!r}: its process {ending(self.process)}; the next call starts a new one"
            ) from error


def _end(process: subprocess.Popen[bytes], connection: Connection, owner: int) -> None:
    """End the process and all that it started; not from a fork of the trainer, whose process it is not."""
    if os.getpid() != owner:
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it had ended by itself
        pass
    process.wait()
    connection.close()


def _pickled(function: Callable[..., Any]) -> bytes:
    if getattr(function, "__module__", "") == "__main__":
        raise ValueError(
            f"{getattr(function, '__name__', function)!r} is defined in the script that runs, which another process cannot "
            "import; move it to a module, e.g. my_rewards.py, and write isolated('my_rewards.NAME')"
        )
    try:
        return pickle.dumps(function)
    except Exception as error:
        raise ValueError(
            f"{function!r} cannot be sent to another process ({error}); expected a function at the top level of a module, or its "
            "dotted name"
        ) from error


def _signature(takes: list[tuple[str, int, bool]]) -> inspect.Signature:
    P = inspect.Parameter
    kinds = {
        int(k): k
        for k in (P.POSITIONAL_ONLY, P.POSITIONAL_OR_KEYWORD, P.VAR_POSITIONAL, P.KEYWORD_ONLY, P.VAR_KEYWORD)
    }
    return inspect.Signature(
        [P(name, kinds[kind], default=None if default else P.empty) for name, kind, default in takes]
    )


def _plain_state(state: Any) -> Any:
    """A trainer's state as the numbers and texts that it holds: the whole would take its package along."""
    if state is None:
        return None
    plain = {k: v for k, v in vars(state).items() if isinstance(v, int | float | str | bool)}
    return types.SimpleNamespace(**plain)


def _can_pickle(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except (pickle.PicklingError, TypeError, AttributeError):
        return False
    return True
