"""Each parameter steps as soon as backward has its gradient, which is then let go (Lv et al. 2023, 2306.09782, §3.2).

There is one optimizer with its groups and its state, as always: a step of it is made of steps with one parameter each. So the
schedule, checkpoints and numbers are those of the plain loop without clipping.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class StepInBackward:
    """Steps within the backward pass while it is `running`.

    From the first gradient that is not finite on, no parameter moves until the step has been judged; a loss that is not finite
    moves none. Those that moved before stay moved.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self._norms: list[Tensor] = []
        self._bad = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hooks on the trained parameters inside."""
        parameters = [p for p in self.trainer.model.parameters() if p.requires_grad]
        hooks = [p.register_post_accumulate_grad_hook(self._take) for p in parameters]
        self._norms, self._bad = [], False
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def norm(self) -> Tensor:
        """The norm of the step's gradients, of which none is left; the next step begins."""
        norms, self._norms, self._bad = self._norms, [], False
        return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())

    def _take(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        wide = torch.promote_types(parameter.grad.dtype, torch.float32)
        norm = torch.linalg.vector_norm(parameter.grad, dtype=wide).float()
        self._norms.append(norm)
        self._bad = self._bad or not bool(norm.isfinite())
        if not self._bad:
            step_one(self.trainer.optimizer, parameter)
        parameter.grad = None


def step_one(optimizer: Any, parameter: Tensor) -> None:
    """A step of `optimizer` that moves one parameter alone."""
    plain = getattr(optimizer, "optimizer", optimizer)
    groups = plain.param_groups
    own = [
        {**group, "params": [parameter]} for group in groups if any(p is parameter for p in group["params"])
    ]
    plain.param_groups = own
    try:
        type(plain).step(plain)  # not the instance's, which counts the schedule's steps
    finally:
        plain.param_groups = groups
