"""The few words that ranks exchange about a checkpoint; with one process nothing is exchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def rank() -> int:
    """This process's number among those that train together, 0 alone."""
    return dist.get_rank() if _several() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _several() else 1


def agree(decide: Callable[[], T]) -> T:
    """What rank 0 found by `decide`, on every rank; a ValueError or OSError of rank 0 becomes everybody's."""
    if not _several():
        return decide()
    outcome: list[tuple[T | None, Exception | None]] = [(None, None)]
    if rank() == 0:
        try:
            outcome = [(decide(), None)]
        except (ValueError, OSError) as error:
            outcome = [(None, error)]
    dist.broadcast_object_list(outcome, src=0)
    value, failure = outcome[0]
    if failure is not None:
        raise failure
    return value  # type: ignore[return-value]


def failures(mine: Exception | None) -> list[str]:
    """Every rank's failure as a line, after all have arrived here."""
    line = None if mine is None else f"rank {rank()}: {type(mine).__name__}: {mine}"
    if not _several():
        return [line] if line else []
    lines: list[str | None] = [None] * world_size()
    dist.all_gather_object(lines, line)
    return [one for one in lines if one]


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
