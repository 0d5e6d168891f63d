"""Gaps in the C library's heap go back to the system while a model reads.

A forward pass lets go of most tensors at once and keeps some for backward. What is kept stands between the gaps, and glibc does
not fill a gap with an aligned tensor of the same size, as it asks for some bytes more to align it. Gaps grew to a third of a
step's memory. Their pages go back after each layer of the second half: what is free before that is mostly what the step before
has left, and used again. Who uses such a gap again gets fresh pages.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn

from .last_layer import layers_of
from .thrift import computed_again

GAPS = 1 << 26
"""Bytes of free memory inside the heap that are worth a walk through it."""
STATES = 1 << 18
"""Numbers in the states of a pass below which it leaves no such gaps."""


class _Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of malloc.h."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


@cache
def _library() -> Any:
    """The C library, where it is a glibc that tells its free memory and gives it back; else None."""
    library: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not (hasattr(library, "malloc_trim") and hasattr(library, "mallinfo2")):
        return None
    library.mallinfo2.restype = _Mallinfo
    library.malloc_trim.argtypes = [ctypes.c_size_t]
    return library


def give_back(least: int = GAPS) -> bool:
    """Return the pages of free memory inside the heap, where those are `least` bytes or more; whether any went back."""
    library = _library()
    return library is not None and library.mallinfo2().fordblks >= least and bool(library.malloc_trim(0))


@contextmanager
def gaps_given_back(trunk: nn.Module, tokens: int) -> Iterator[None]:
    """Inside, gaps go back after each layer of the second half of a trunk that reads so many tokens; nothing is done where no
    gradient is asked, where activations are computed again, for few tokens, and off the CPU."""
    first = next(trunk.parameters(), None)
    layers = layers_of(trunk) if first is not None and first.device.type == "cpu" else None
    few = tokens * getattr(getattr(trunk, "config", None), "hidden_size", 0) < STATES
    if layers is None or few or not torch.is_grad_enabled() or computed_again(trunk):
        yield
        return

    def after(*_: Any) -> None:
        give_back()

    hooks = [layer.register_forward_hook(after) for layer in [*layers][len(layers) // 2 :]]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
