"""A model as a loop of one's own generates with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from .modules import unwrap
from .recomputing import disable_gradient_checkpointing
from .sharded import whole


@contextmanager
def unwrap_model_for_generation(
    model: nn.Module, accelerator: Any = None, gather_deepspeed3_params: bool = True
) -> Iterator[Any]:
    """Inside, `model` without its wrappers, its layers not recomputing, and whole where it lies in pieces
    (gather_deepspeed3_params=False: as it lies). The accelerator is not needed; all processes must enter and leave together.
    """
    bare = unwrap(model)
    with ExitStack() as held:
        held.enter_context(disable_gradient_checkpointing(bare))
        if gather_deepspeed3_params:
            held.enter_context(whole(bare))
        yield bare
