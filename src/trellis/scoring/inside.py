"""Running a function inside a wrapped model's own forward call.

DDP, FSDP and their kin do their work (unsharding, gradient synchronisation, casting) around `forward`. Scoring needs the trunk
and the head separately, so for one call it takes the place of the innermost forward.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ..models import unwrap

Named = dict[str, Tensor]


def inside(model: nn.Module, fn: Callable[[nn.Module], Named]) -> Named:
    """`fn(module)` with the module that `model` wraps, run within the wrapper's forward; returns its dict of tensors."""
    root = unwrap(model)
    if root is model:
        return fn(root)
    had, before = "forward" in root.__dict__, root.__dict__.get("forward")

    def restore() -> None:
        if had:
            root.__dict__["forward"] = before
        else:
            root.__dict__.pop("forward", None)

    def forward() -> Named:
        restore()
        return fn(root)

    root.__dict__["forward"] = forward
    try:
        return model()
    finally:
        restore()
