"""The largest tensor that a computation makes."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Largest(TorchDispatchMode):
    """While active: `elements` of the largest storage that any operation, forward or backward, returned for the first time.

    `ignore`: shapes that do not count (a parameter's own gradient is as large as the parameter).
    """

    def __init__(self, ignore: set[tuple[int, ...]] = frozenset()) -> None:  # type: ignore[assignment]
        super().__init__()
        self.elements, self.shape, self.ignore = 0, (), ignore

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {
            x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)
        }
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if not isinstance(x, torch.Tensor) or x.untyped_storage().data_ptr() in known:
                continue
            elements = x.untyped_storage().nbytes() // x.element_size()
            if elements > self.elements and tuple(x.shape) not in self.ignore:
                self.elements, self.shape = elements, tuple(x.shape)
        return out
