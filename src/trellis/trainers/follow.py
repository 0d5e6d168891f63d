"""A reference that follows the policy: TR-DPO, Gorbatovski et al. 2024 (2404.09656), soft update."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from ..models import Reference, unwrap


def own_weights(reference: Reference) -> dict[str, Tensor]:
    """The weights that are the reference's alone, by the policy's names for them.

    Raises ValueError where it has none: the model without its adapter, or an adapter of the model.
    """
    if reference.model is not None:
        return dict(reference.model.named_parameters())
    if reference.kind == "snapshot":
        return reference.values
    raise ValueError(
        f"sync_ref_model=True needs a reference with weights of its own, but here it is the policy's {reference.kind} "
        "weights. Write sync_ref_model=False, or train without an adapter."
    )


def check_follows(reference: Reference, policy: nn.Module) -> None:
    """Raises ValueError when the reference cannot become a mixture of itself and the policy."""
    policies = {name: p.shape for name, p in unwrap(policy).named_parameters()}
    other = [n for n, w in own_weights(reference).items() if policies.get(n) != w.shape]
    if other:
        raise ValueError(
            f"sync_ref_model=True needs a reference with the policy's architecture; {len(other)} weights differ, such as "
            f"{other[0]!r}. Write sync_ref_model=False, or ref_model=None."
        )


@torch.no_grad()
def follow(reference: Reference, policy: nn.Module, alpha: float) -> None:
    """reference ← α · policy + (1 − α) · reference, weight by weight."""
    policies = dict(unwrap(policy).named_parameters())
    for name, weight in own_weights(reference).items():
        weight.lerp_(policies[name].detach().to(weight.device, weight.dtype), alpha)


class FollowPolicy(TrainerCallback):
    """Lets the trainer's reference follow every `ref_model_sync_steps` optimizer steps."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % args.ref_model_sync_steps == 0:
            follow(self.trainer.reference, self.trainer.model, args.ref_model_mixup_alpha)
