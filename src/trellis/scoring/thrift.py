"""Norms and gated feed-forward parts that keep less for backward: what is cheap is computed again there.

Plain autograd keeps every intermediate: of an RMS norm the normed states beside its input, for the matrices that read them, of
silu(gate) · up the silu and the product beside both. In a Llama that is two fifths of all activations. The numbers of the forward
pass stay the model's own to the bit, which is looked at once for each kind of module; backward is the same formula, rounded in
another order.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

Forward = Callable[[Tensor], Tensor]
_silu_backward = torch.ops.aten.silu_backward
READERS = frozenset({"q_proj", "k_proj", "v_proj", "qkv_proj", "gate_proj", "up_proj", "gate_up_proj"})
"""What a layer's matrices that read a norm's output are called."""


class _Again:
    """A norm's output, computed again by the first in backward of the matrices that read it and let go of by the last."""

    def __init__(self) -> None:
        self.readers = self.left = 0
        self._states: Tensor | None = None

    def __call__(self, x: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        if self._states is None:
            self._states, self.left = _scaled(x.to(torch.float32), scale, weight, x.dtype), self.readers
        found, self.left = self._states, self.left - 1
        if not self.left:
            self._states = None
        return found


@dataclass(frozen=True)
class _Normed:
    """What a norm's output says to the matrices that read it, as long as its `version` is this one: they keep the norm's
    input, its scale and weight, which are kept anyway, instead of it."""

    version: int
    parts: tuple[Tensor, Tensor, Tensor]
    again: _Again


def _scaled(
    wide: Tensor, scale: Tensor, weight: Tensor, dtype: torch.dtype, out: Tensor | None = None
) -> Tensor:
    """weight · (wide · scale), in place of `out` where one is given."""
    found = torch.mul(wide, scale, out=out).to(dtype)
    return found.mul_(weight) if torch.result_type(found, weight) == dtype else weight * found


class _RMSNorm(torch.autograd.Function):
    """weight · x / √(mean x² + eps) (Zhang & Sennrich 2019, 1910.07467, eq. 4), in float32 inside; keeps x [*, H] and
    1/√ [*, 1]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        wide = x.to(torch.float32)
        room = wide.pow(2)
        scale = torch.rsqrt(room.mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, scale)
        ctx.mark_non_differentiable(scale)
        return _scaled(wide, scale, weight, x.dtype, room), scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        normed = x.to(torch.float32) * scale
        of_weight = of_x = None
        if ctx.needs_input_grad[1]:
            of_weight = (grad * normed.to(x.dtype)).flatten(0, -2).sum(0).to(weight.dtype)
        if ctx.needs_input_grad[0]:
            inner = (grad * weight).to(torch.float32)
            along = torch.linalg.vecdot(inner, normed).unsqueeze(-1) / x.shape[-1]
            of_x = inner.sub_(normed.mul_(along)).mul_(scale).to(x.dtype)
        return of_x, of_weight, None


class _OfNormed(torch.autograd.Function):
    """A matrix times the output of a norm, which is not kept."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, matrix: Tensor, bias: Tensor | None, normed: _Normed) -> Tensor:
        ctx.again = normed.again  # not the parts: what is saved goes when it has been read
        normed.again.readers += ctx.needs_input_grad[1]
        ctx.save_for_backward(matrix, *(normed.parts if ctx.needs_input_grad[1] else ()))
        return linear(states, matrix, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        matrix, *parts = ctx.saved_tensors
        of_states = grad @ matrix if ctx.needs_input_grad[0] else None
        flat, of_matrix, of_bias = grad.flatten(0, -2), None, None
        if ctx.needs_input_grad[1]:
            of_matrix = flat.T @ ctx.again(*parts).flatten(0, -2)
        if ctx.needs_input_grad[2]:
            of_bias = flat.sum(0)
        return of_states, of_matrix, of_bias, None


class _Gated(torch.autograd.Function):
    """silu(gate) · up, and its product with a matrix where one is given (Shazeer 2020, 2002.05202, eq. 6); keeps gate and up."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        inner = silu(gate).mul_(up)
        return inner if weight is None else linear(inner, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        opened, of_weight, of_bias = silu(gate), None, None
        if ctx.needs_input_grad[2]:
            of_weight = grad.flatten(0, -2).T @ (opened * up).flatten(0, -2)
        if ctx.needs_input_grad[3]:
            of_bias = grad.flatten(0, -2).sum(0)
        inner = grad.clone() if weight is None else grad @ weight
        of_up = opened.mul_(inner)
        return _silu_backward(inner.mul_(up), gate), of_up, of_weight, of_bias


def _norm(module: Any) -> Forward:
    def forward(x: Tensor) -> Tensor:
        states, scale = _RMSNorm.apply(x, module.weight, module.variance_epsilon)
        # A copy of the weight, which what shards models may take away before the matrices' backward.
        parts = x.detach(), scale, module.weight.detach().clone()
        states.normed = _Normed(states._version, parts, _Again())
        return states

    return forward


def _matrix(module: Any) -> Forward:
    def forward(x: Tensor) -> Tensor:
        normed = getattr(x, "normed", None)
        if normed is None or x._version != normed.version or not _plain(module):
            return type(module).forward(module, x)
        return _OfNormed.apply(x, module.weight, module.bias, normed)

    return forward


def _plain(module: nn.Module) -> bool:
    """Whether a module is its matrix and nothing else: no adapter, no hook that gathers its weights, no casting of them."""
    if type(module) is not nn.Linear or torch.is_autocast_enabled(module.weight.device.type):
        return False
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    whole = module.weight.shape == (module.out_features, module.in_features)
    return whole and type(module.weight) is nn.Parameter and not any(hooks)


def _feed_forward(module: Any) -> Forward:
    def forward(x: Tensor) -> Tensor:
        gate, up, down = module.gate_proj(x), module.up_proj(x), module.down_proj
        if gate.dtype == up.dtype and "forward" not in vars(down) and _plain(down):
            return _Gated.apply(gate, up, down.weight, down.bias)
        return down(_Gated.apply(gate, up, None, None))

    return forward


def _is_norm(module: Any) -> bool:
    return (
        type(module).__name__.endswith("RMSNorm")
        and hasattr(module, "variance_epsilon")
        and len(module._parameters) == 1
    )


def _is_feed_forward(module: Any) -> bool:
    names = {"gate_proj", "up_proj", "down_proj", "act_fn"}
    return set(module._modules) == names and type(module.act_fn).__name__ in ("SiLU", "SiLUActivation")


def _reads_a_norm(name: str, module: nn.Module) -> bool:
    return type(module) is nn.Linear and name.rpartition(".")[2] in READERS


def _agrees(module: Any, ours: Forward) -> bool:
    """Whether a module's own forward gives the very numbers of ours; False where its weights are not all here."""
    weight = next(module.parameters())
    width = weight.shape[-1] if weight.dim() else 0
    x = (
        torch.linspace(-2, 2, 6 * width, device=weight.device).view(2, 3, -1).to(weight.dtype)
        if width
        else None
    )
    try:
        return x is not None and torch.equal(type(module).forward(module, x), ours(x))
    except (RuntimeError, TypeError, AttributeError):
        return False


def _maker(name: str, module: nn.Module) -> Callable[[Any], Forward] | None:
    if _is_norm(module):
        return _norm
    if _is_feed_forward(module):
        return _feed_forward
    return _matrix if _reads_a_norm(name, module) else None


_found: weakref.WeakKeyDictionary[nn.Module, list[tuple[nn.Module, Forward]]] = weakref.WeakKeyDictionary()


@torch.no_grad()
def _parts(trunk: nn.Module) -> list[tuple[nn.Module, Forward]]:
    """The modules of a trunk that can keep less, each with its other forward; the first of each kind is looked at."""
    found, kinds = [], dict[type, bool]()
    for name, module in trunk.named_modules():
        make = _maker(name, module)
        if make is None:
            continue
        ours = make(module)
        if type(module) not in kinds:
            kinds[type(module)] = _agrees(module, ours)
        if kinds[type(module)]:
            found.append((module, ours))
    return found


def computed_again(module: nn.Module) -> bool:
    """Whether backward runs a forward pass of this module, or of a part, anew: what it does then must be what it did."""
    return any(
        getattr(m, "gradient_checkpointing", False) or "_checkpoint_wrapped_module" in m._modules
        for m in module.modules()
    )


@contextmanager
def thrifty(trunk: nn.Module) -> Iterator[None]:
    """Inside, the trunk keeps less for backward; as it is where no gradient is asked, or activations are computed again."""
    if not torch.is_grad_enabled() or computed_again(trunk):
        yield
        return
    if trunk not in _found:
        _found[trunk] = _parts(trunk)
    changed = [(module, ours) for module, ours in _found[trunk] if "forward" not in vars(module)]
    for module, ours in changed:
        module.__dict__["forward"] = ours
    try:
        yield
    finally:
        for module, _ in changed:
            module.__dict__.pop("forward", None)
