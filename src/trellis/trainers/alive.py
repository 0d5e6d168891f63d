"""Whether adapters are part of the computation: a module whose adapter gets no gradient stays as it was, in silence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..models import adapted_modules

SHOWN = 4


WHERE = (
    "a head or a wrapper that bypasses them, target_modules that the forward pass does not use, or gradient checkpointing whose "
    "inputs need no gradient (gradient_checkpointing_kwargs={'use_reentrant': False})"
)


class Alive:
    """Looks at the gradients of the first optimizer step that moves a peft model, and never again."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self._waiting: list[dict[str, list[nn.Parameter]]] | None = None

    def look(self, model: nn.Module) -> None:
        """Called before an optimizer step. Of an adapted module one gradient that is not 0 is enough (LoRA's A starts with none).

        Raises ValueError where no adapter of a peft model is part of the computation, warns where some are not. A model whose
        gradients are all 0 (a critic is warmed up, all rewards are equal) is looked at again in the next step.
        """
        if self._waiting is None:
            self._waiting = adapted_modules(model)
        if not self._waiting:
            return
        if not any(p.grad is not None for p in model.parameters()):
            self._waiting = []  # whoever shards the optimizer, or steps inside backward, keeps them elsewhere
            return
        self._waiting = [part for part in self._waiting if not self._settled(part)]

    def _settled(self, part: dict[str, list[nn.Parameter]]) -> bool:
        """Whether one peft model has been judged; every rank decides alike."""
        seen = torch.stack([_seen(parameters) for parameters in part.values()])
        there, moves = (column > 0 for column in self.trainer.sum_over_ranks(seen).T.cpu())
        if not bool(there.any()):
            raise ValueError(
                f"none of the {len(part)} adapted modules ({_names(part)}) got a gradient in the first step, so they are no part "
                f"of the computation; look for {WHERE}"
            )
        dead = [name for name, alive in zip(part, moves.tolist(), strict=True) if not alive]
        if len(dead) == len(part):
            return False
        if dead:
            self.trainer.health.tell(
                "dead-lora",
                f"{len(dead)} of {len(part)} adapted modules got no gradient in the first step that moved the others, and stay "
                f"as they are as long as they get none: {_names(dead)}. Either this step did not use them (experts that no token "
                "was sent to), or the forward pass never does: leave those out of target_modules",
            )
        return True


def explained(error: BaseException) -> BaseException:
    """The error itself, or in place of a backward pass that found nothing to train, a ValueError that says so."""
    if "does not require grad" not in str(error):
        return error
    told = ValueError(
        "the loss depends on no trainable weight: either all of them are frozen (requires_grad is False everywhere), or adapters "
        f"are no part of the computation; look for {WHERE}"
    )
    told.__cause__ = error
    return told


def _seen(parameters: list[nn.Parameter]) -> Tensor:
    """[2]: how many of them have a gradient, and how many one that is not 0 (of what this rank holds)."""
    gradients = [_local(p.grad) for p in parameters if p.grad is not None]
    moving = sum((g.any().float() for g in gradients), torch.zeros((), device=parameters[0].device))
    return torch.stack([torch.full_like(moving, len(gradients)), moving])


def _local(gradient: Any) -> Tensor:
    return gradient.to_local() if hasattr(gradient, "to_local") else gradient


def _names(modules: Any) -> str:
    names = list(modules)
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
