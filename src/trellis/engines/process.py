"""The engine that samples in processes of its own: other devices, or other cores, while this process trains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection, Pipe
from typing import Any

import torch
from torch import nn

from ..models import unwrap
from ..rollout import Completion, RolloutStats, SamplingParams
from .module_copy import Outgoing
from .several import shares

START = 300.0
"""Seconds that a process may take to start."""
SLICE = 0.05
"""Seconds between two looks at whether a process is still there."""
KINDS = {kind.__name__: kind for kind in (FloatingPointError, ValueError, TypeError)}
"""Errors of sampling that are raised here as what they are."""
_COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from trellis.engines.process_child import serve; "
    "serve(int(sys.argv[2]), int(sys.argv[3]))"
)


class ProcessEngine:
    """Samples with copies of the policy in `n` other processes, or one on each of `devices`; prompts are split among them.

    Weights go through memory that all of them see. A completion is a function of the weights, its prompt and its seed, whatever
    `n` is. rows: so many rows are decoded at once in each. One caller samples at a time; `sync` waits for it.
    """

    exact = True
    apart = True

    def __init__(self, n: int = 1, *, devices: Sequence[str] | None = None, rows: int | None = None) -> None:
        if n < 1 or (devices is not None and not devices):
            raise ValueError(f"sampling needs at least one process, found n={n}, devices={devices}")
        self.devices: list[str | None] = [None] * n if devices is None else list(devices)
        self.rows, self.stats = rows, RolloutStats()
        self._busy = threading.Lock()
        self._weights: Outgoing | None = None
        self._home = "cpu"  # the kind of device that the policy is trained on
        self._processes: list[_Process] = []

    def sync(self, model: nn.Module, step: int) -> None:
        """Sample with the weights that `model` has now, whatever happens to it later.

        Raises ValueError for a model that cannot be sent, ConnectionError where no process starts.
        """
        model = unwrap(model)
        with self._busy:
            if self._weights is not None and self._processes and self._weights.fits(model):
                self._weights.refresh(model)
            else:
                self.close()
                self._start(model)
            for process in self._processes:
                process.outdated = True

    def __call__(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams, *, n: int = 1, seeds: Sequence[int]
    ) -> list[Completion]:
        """See `rollout.Sampler`. Raises ConnectionError when a process has ended; the next `sync` starts new ones."""
        if len(seeds) != len(prompts) * n:
            raise ValueError(
                f"{len(prompts)} prompts × {n} completions need {len(prompts) * n} seeds, found {len(seeds)}"
            )
        with self._busy:
            if not self._processes:
                raise ValueError("this engine has no weights yet; call sync(model, step) before sampling")
            asked = []
            for process, part in zip(
                self._processes, shares(len(prompts), len(self._processes)), strict=True
            ):
                if len(part):
                    own = [[int(token) for token in prompts[i]] for i in part]
                    request = self._request(own, params, n, seeds[part.start * n : part.stop * n])
                    process.send(request)
                    asked.append(process)
            try:
                answers = [process.received() for process in asked]
            except BaseException:
                self.close()  # an answer that comes late would be taken for the next one
                raise
        return [completion for answer in answers for completion in self._completions(answer)]

    def close(self) -> None:
        """End the processes, and what they are sampling."""
        for process in self._processes:
            process.end()
        self._processes, self._weights = [], None

    def _start(self, model: nn.Module) -> None:
        weights, home = Outgoing(model), next(model.parameters()).device
        count, self._home = len(self.devices), home.type
        try:
            self._processes = [
                _Process(f"{i + 1} of {count}", device or str(home), weights)
                for i, device in enumerate(self.devices)
            ]
            for process in self._processes:
                process.received(START)
        except BaseException:
            self.close()
            raise
        finally:
            weights.unlink()
        self._weights = weights

    def _request(
        self, prompts: list[list[int]], params: SamplingParams, n: int, seeds: Sequence[int]
    ) -> dict[str, Any]:
        precise = torch.get_autocast_dtype(self._home) if torch.is_autocast_enabled(self._home) else None
        return {
            "prompts": prompts,
            "params": {**asdict(params), "stop_ids": sorted(params.stop_ids)},
            "n": n,
            "seeds": [int(seed) for seed in seeds],
            "rows": self.rows,
            "autocast": None if precise is None else str(precise).removeprefix("torch."),
        }

    def _completions(self, answer: dict[str, Any]) -> list[Completion]:
        for name, value in answer["stats"].items():
            setattr(self.stats, name, getattr(self.stats, name) + value)
        return [Completion(*row) for row in answer["rows"]]


class _Process:
    """One process and the connection to it; `outdated`: its weights are not those in the shared memory."""

    def __init__(self, name: str, device: str, weights: Outgoing) -> None:
        self.name, self.device, self.outdated = name, device, True
        self.connection, theirs = Pipe()
        paths = json.dumps([os.path.abspath(path) for path in sys.path])
        command = [sys.executable, "-c", _COMMAND, paths, str(theirs.fileno()), str(os.getpid())]
        # A session of its own: a Ctrl-C is the trainer's alone.
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
        )
        theirs.close()
        self.end = weakref.finalize(self, _end, self.process, self.connection, os.getpid())
        asked = {
            "device": device,
            "threads": torch.get_num_threads(),
            "path": weights.path,
            "slots": weights.slots,
        }
        self._send(json.dumps(asked).encode())
        self._send(weights.module)

    def send(self, request: dict[str, Any]) -> None:
        """Ask it to sample."""
        request["new_weights"], self.outdated = self.outdated, False
        self._send(json.dumps(request).encode())

    def _send(self, data: bytes) -> None:
        try:
            self.connection.send_bytes(data)
        except OSError:  # it has just ended; waiting for its answer says how
            pass

    def received(self, timeout: float | None = None) -> dict[str, Any]:
        """Its answer. Raises ConnectionError when it has ended, TimeoutError after `timeout` s, and what sampling raised."""
        waited = 0.0
        try:
            while not self.connection.poll(SLICE):
                waited += SLICE
                if self.process.poll() is not None and not self.connection.poll(0):
                    raise EOFError
                if timeout is not None and waited > timeout:
                    raise TimeoutError(f"sampling process {self.name} has not started within {timeout:g} s")
            answer = json.loads(self.connection.recv_bytes())
        except (EOFError, ConnectionError) as error:
            raise ConnectionError(
                f"sampling process {self.name} (on {self.device}) {ending(self.process)}; checkpoints are untouched: look for "
                "its last words above, then go on with resume_from_checkpoint=True"
            ) from error
        if "failed" in answer:
            kind = KINDS.get(answer["failed"])
            said = f"in sampling process {self.name}: {answer['message']}"
            raise RuntimeError(f"{answer['failed']} {said}") if kind is None else kind(said)
        return answer


def _end(process: subprocess.Popen[bytes], connection: Connection, owner: int) -> None:
    """End the process; not from a fork of the trainer, whose process it is not."""
    if os.getpid() != owner:
        return
    process.kill()
    process.wait()
    connection.close()


def ending(process: subprocess.Popen[bytes]) -> str:
    """How a process ended that no longer answers, in words."""
    try:
        code = process.wait(5)
    except subprocess.TimeoutExpired:
        return "closed its connection"
    return f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
