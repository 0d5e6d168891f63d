"""Running a function inside a wrapped model's own forward call.

DDP, FSDP and their kin do their work (unsharding, gradient synchronisation, casting) around `forward`. Scoring needs the trunk
and the head separately, so for one call it takes the place of the innermost forward.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ..models import unwrap, zero
from ..models.fsdp import gathers

Named = dict[str, Tensor]


def inside(model: nn.Module, fn: Callable[[nn.Module], Named]) -> Named:
    """`fn(module)` with the module that `model` wraps, run within the wrapper's forward; returns its dict of tensors."""
    root = unwrap(model)
    if root is not model:
        return _in_place_of_forward(model, root, fn)
    if zero.in_pieces(root):
        with zero.gathered(root):
            return fn(root)
    if zero.gathers(root):
        return _in_place_of_forward(root, root, fn)
    if not gathers(root):
        return fn(root)
    kept: Named = {}

    def run(module: nn.Module) -> Named:
        # Not views: FSDP hangs its hooks on what comes out.
        kept.update({name: x if x._base is None else x.clone() for name, x in fn(module).items()})
        return kept

    _in_place_of_forward(root, root, run)
    return kept  # what FSDP hands back it may have cast to half precision


def _in_place_of_forward(model: nn.Module, root: nn.Module, fn: Callable[[nn.Module], Named]) -> Named:
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
