"""A reference that follows the policy: TR-DPO, Gorbatovski et al. 2024 (2404.09656), soft update."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from ..models import Reference, unwrap
from ..models.sharded import sharding_of


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
    mix(own_weights(reference), policy, alpha)


@torch.no_grad()
def mix(weights: dict[str, Tensor], policy: nn.Module, alpha: float) -> None:
    """weights ← α · policy's of the same name + (1 − α) · weights."""
    policies = dict(unwrap(policy).named_parameters())
    for name, weight in weights.items():
        weight.lerp_(policies[name].detach().to(weight.device, weight.dtype), alpha)


class FollowPolicy(TrainerCallback):
    """Lets the trainer's reference follow every `ref_model_sync_steps` optimizer steps."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % args.ref_model_sync_steps == 0:
            follow(self.trainer.reference, self.trainer.model, args.ref_model_mixup_alpha)


class SyncRefModelCallback(TrainerCallback):
    """Lets `ref_model` follow the model that any trainer trains, every `args.ref_model_sync_steps` steps by
    `args.ref_model_mixup_alpha`. Trainers with `sync_ref_model=True` do it for their own reference, and over an interruption.
    """

    def __init__(self, ref_model: nn.Module | None, accelerator: Any = None) -> None:
        self.ref_model, self.accelerator = ref_model, accelerator

    @staticmethod
    def sync_target_model(model: nn.Module, target_model: nn.Module, alpha: float) -> None:
        """target ← α · model + (1 − α) · target, weight by weight. Raises ValueError where their weights differ in name or shape,
        or lie in pieces."""
        if sharding_of(model) or sharding_of(target_model):
            raise ValueError(
                "the weights lie in pieces on several processes; write sync_ref_model=True in the trainer's config"
            )
        weights, other = dict(target_model.named_parameters()), dict(unwrap(model).named_parameters())
        odd = [name for name, w in weights.items() if name not in other or other[name].shape != w.shape]
        if odd:
            raise ValueError(
                f"the reference is another kind of model: {len(odd)} weights differ, such as {odd[0]!r}; expected one of the "
                "policy's architecture"
            )
        mix({name: w.data for name, w in weights.items()}, model, alpha)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.ref_model is not None and state.global_step % args.ref_model_sync_steps == 0:
            self.sync_target_model(kwargs["model"], self.ref_model, args.ref_model_mixup_alpha)
