"""The other side of `ProcessEngine`: a process that holds a copy of the policy and samples until its trainer is gone."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn

from ..rollout import RolloutStats, SamplingParams, sample
from .module_copy import incoming

LOOK = 1.0
"""Seconds between two looks at whether the trainer is still there."""


def serve(handle: int, parent: int) -> None:
    """Answer what comes through the connection `handle` until it ends, or the process `parent` does."""
    connection = Connection(handle)
    try:
        asked = json.loads(connection.recv_bytes())
        torch.set_num_threads(asked["threads"])
        device = torch.device(asked["device"])
        model, copies = incoming(connection.recv_bytes(), asked["path"], asked["slots"], device)
    except Exception as error:  # whatever it is, the trainer's user must read it
        _send(connection, _failed(error))
        return
    _send(connection, {"ready": True})
    try:
        while _asked(connection, parent):
            request = json.loads(connection.recv_bytes())
            if request.pop("new_weights"):
                for own, shared in copies:
                    own.copy_(shared)
            _send(connection, _answer(model, request, device.type))
    except (EOFError, BrokenPipeError):  # the trainer has ended
        return


def _asked(connection: Connection, parent: int) -> bool:
    while not connection.poll(LOOK):
        if os.getppid() != parent:
            return False
    return True


def _answer(model: nn.Module, request: dict[str, Any], device: str) -> dict[str, Any]:
    stats = RolloutStats()
    try:
        params = SamplingParams(**request["params"])
        with _precision(request["autocast"], device):
            found = sample(
                model,
                request["prompts"],
                params,
                n=request["n"],
                seeds=request["seeds"],
                rows=request["rows"],
                stats=stats,
            )
    except Exception as error:  # named in the trainer
        return _failed(error)
    rows = [[c.ids, c.logps, c.sampler_logps, c.finish_reason] for c in found]
    return {"rows": rows, "stats": vars(stats)}


def _precision(name: str | None, device: str) -> AbstractContextManager[Any]:
    return nullcontext() if name is None else torch.autocast(device, getattr(torch, name))


def _failed(error: Exception) -> dict[str, Any]:
    return {"failed": type(error).__name__, "message": str(error)}


def _send(connection: Connection, answer: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(answer).encode())
