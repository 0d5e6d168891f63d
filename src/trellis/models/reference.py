"""The policy at step 0, or whatever else the user wants the policy to stay close to."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from . import fsdp
from .adapters import adapter_parameters, is_fresh, is_peft
from .modules import shares_parameters, unwrap
from .quantized import is_quantized
from .sharded import whole


@dataclass
class Reference:
    """What `ref_logps` are scored with. Build it with `Reference.of`; `kind` says where the model is:

    "model", "copy": `model`, given or a frozen copy; "base": the policy with its adapter off; "adapter": the policy with the
    adapter `adapter` on; "snapshot": the policy with its adapter `adapter` as it was at step 0 (`values`).

    `offload`: a model of its own waits in the CPU's memory while it is not asked.
    """

    kind: str
    model: nn.Module | None = None
    adapter: str | None = None
    values: dict[str, Tensor] = field(default_factory=dict)
    offload: bool = False

    @classmethod
    def of(
        cls,
        policy: nn.Module,
        ref_model: nn.Module | None = None,
        *,
        ref_adapter_name: str | None = None,
        model_adapter_name: str | None = None,
    ) -> Reference:
        """The reference of `policy`, to be called before it is trained; KL is exactly 0 at step 0 unless a model or adapter
        is named. `model_adapter_name` becomes the policy's active adapter, `ref_adapter_name` is frozen.

        Raises ValueError when the two would be the same weights, or an adapter does not exist.
        """
        policy = unwrap(policy)
        if ref_model is not None and ref_adapter_name is not None:
            raise ValueError("ref_model and ref_adapter_name both name a reference; pass one of them")
        choose_adapter(policy, model_adapter_name)
        if ref_adapter_name is not None:
            return cls._named(policy, ref_adapter_name)
        if ref_model is not None:
            return cls._given(policy, unwrap(ref_model))
        if not is_peft(policy):
            with whole(policy):
                return cls("copy", copy.deepcopy(policy).eval().requires_grad_(False))
        active = policy.active_adapter
        if is_fresh(policy, active):
            return cls("base")
        # A trained adapter: step 0 is neither the base nor a second adapter that every save would write as well.
        with whole(policy):
            values = {n: p.detach().clone() for n, p in adapter_parameters(policy, active).items()}
        return cls("snapshot", adapter=active, values=values)

    @classmethod
    def _named(cls, policy: nn.Module, name: str) -> Reference:
        _check_adapter(policy, name, "ref_adapter_name")
        if name == policy.active_adapter:
            raise ValueError(
                f"ref_adapter_name={name!r} is the adapter that is trained; name another one, load it a second time under "
                "another name, or leave ref_adapter_name out (the adapter as it is now then is the reference)"
            )
        for parameter in adapter_parameters(policy, name).values():
            parameter.requires_grad_(False)
        return cls("adapter", adapter=name)

    @classmethod
    def _given(cls, policy: nn.Module, ref_model: Any) -> Reference:
        if not isinstance(ref_model, nn.Module):
            raise TypeError(f"ref_model must be a module or None, found {type(ref_model).__name__}")
        if ref_model is policy or shares_parameters(policy, ref_model):
            raise ValueError(
                "ref_model shares its weights with the model that is trained, so it would follow it; pass ref_model=None for "
                "a frozen copy (with an adapter: the model without it), or load the reference a second time"
            )
        return cls("model", ref_model)

    @contextmanager
    def active(self, policy: nn.Module) -> Iterator[nn.Module]:
        """The module to score with, in eval mode and without gradients; on exit everything is as it was before."""
        policy = unwrap(policy)
        model = policy if self.model is None else self._placed(policy)
        try:
            with torch.no_grad(), _restored(model):
                model.eval()
                with self._switched(policy):
                    yield model
        finally:
            if self.offload and model is not policy and not _stays(model, policy):
                model.to("cpu")

    def _switched(self, policy: nn.Module) -> Any:
        if self.kind == "base":
            return policy.disable_adapter()
        if self.kind == "adapter":
            return _set_adapter(policy, str(self.adapter))
        if self.kind == "snapshot":
            if fsdp.cut(policy):
                raise ValueError(
                    "the reference is the adapter as it was loaded, which FSDP cannot switch to; load it a second time and name "
                    "that one by ref_adapter_name, or train with --accelerate ddp or zero2"
                )
            return self._swapped(policy)
        return nullcontext()

    def _placed(self, policy: nn.Module) -> nn.Module:
        """The separate model, on the policy's device (unless its layers were spread over devices when it was loaded), in pieces
        where FSDP has cut the policy."""
        assert self.model is not None
        if fsdp.cut(policy):
            fsdp.cut_like(self.model, policy)
            return self.model
        device, here = next(policy.parameters()).device, next(self.model.parameters()).device
        if device != here and not hasattr(self.model, "hf_device_map"):
            self.model.to(device)
        return self.model

    @contextmanager
    def _swapped(self, policy: nn.Module) -> Iterator[None]:
        parameters = adapter_parameters(policy, str(self.adapter))
        now = {n: p.data for n, p in parameters.items()}
        try:
            for name, parameter in parameters.items():
                self.values[name] = self.values[name].to(parameter.device)
                parameter.data = self.values[name]
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.data = now[name]


def _stays(model: nn.Module, policy: nn.Module) -> bool:
    """Whether a reference cannot move: it is in pieces, spread over devices, or in fewer bits."""
    return fsdp.cut(policy) or hasattr(model, "hf_device_map") or is_quantized(model)


def choose_adapter(policy: nn.Module, name: str | None) -> None:
    """Make the adapter `name` the one that is trained (None: it stays). Raises ValueError where there is no such adapter."""
    if name is not None:
        _check_adapter(policy, name, "model_adapter_name")
        policy.set_adapter(name)


def _check_adapter(policy: nn.Module, name: str, option: str) -> None:
    if not is_peft(policy):
        raise ValueError(f"{option}={name!r} needs a peft model, but the model is a {type(policy).__name__}")
    if name not in policy.peft_config:
        raise ValueError(
            f"{option}={name!r}: the model has no such adapter; it has {sorted(policy.peft_config)}"
        )


@contextmanager
def _set_adapter(policy: nn.Module, name: str) -> Iterator[None]:
    before = policy.active_adapter
    policy.set_adapter(name)
    try:
        yield
    finally:
        policy.set_adapter(before)


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Training flags and requires_grad flags as before (peft changes the latter whenever an adapter is switched)."""
    training = [(m, m.training) for m in model.modules()]
    grad = [(p, p.requires_grad) for p in model.parameters()]
    try:
        yield
    finally:
        for module, flag in training:
            module.training = flag
        for parameter, wanted in grad:
            if parameter.requires_grad != wanted:
                parameter.requires_grad_(wanted)
