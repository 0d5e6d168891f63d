"""Evaluation mode that leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation(model: nn.Module) -> Iterator[nn.Module]:
    """`model` in eval mode; afterwards each of its modules is in the mode it was found in."""
    found = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in found:
            module.training = training
