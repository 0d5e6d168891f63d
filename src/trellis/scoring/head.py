"""The vocabulary head that returns log-probabilities instead of logits.

Logits exist for a tile at a time, many rows by a part of the vocabulary: it is projected, folded into the rows' running
log-sum-exp, target's logit, and (when asked) entropy and arg-max, and dropped. Backward projects the tile again. Memory is that
of one tile, whatever the vocabulary, the batch or the length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .tiles import Reduced, Running, Tiles, chunk_rows, reduce, within


@dataclass(frozen=True)
class Transform:
    """What a model does to its logits after the projection: z = softcap · tanh(scale · x / softcap), then z / temperature."""

    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        """The transformed logits, in place where `x` needs no gradient."""
        if x.requires_grad:
            x = x * self.scale
            x = x if self.softcap is None else self.softcap * torch.tanh(x / self.softcap)
            return x / self.temperature
        if self.scale != 1.0:
            x.mul_(self.scale)
        if self.softcap is not None:
            x.div_(self.softcap).tanh_().mul_(self.softcap)
        return x if self.temperature == 1.0 else x.div_(self.temperature)

    def backward(self, grad: Tensor, z: Tensor) -> Tensor:
        """dx from dz, in place; `z` are the transformed logits (read for a soft-cap only)."""
        if self.scale != self.temperature:
            grad.mul_(self.scale / self.temperature)
        if self.softcap is not None:
            grad.mul_(1 - (z * (self.temperature / self.softcap)) ** 2)
        return grad


def wide(x: Tensor) -> Tensor:
    """`x` in float32, or as it is where it is float64: a float64 model is scored in float64."""
    return x if x.dtype == torch.float64 else x.float()


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    z = rows.to(weight.dtype) @ weight.T
    if bias is not None:
        z = z.add_(bias)
    return wide(z)


@dataclass
class _Gradients:
    """What backward adds up, tile by tile; None where nothing is asked."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def asked(
        cls, needed: tuple[bool, ...], hidden: Tensor, weight: Tensor, bias: Tensor | None
    ) -> _Gradients:
        return cls(
            torch.zeros_like(hidden, dtype=_sum_dtype(weight)) if needed[0] else None,
            torch.empty_like(weight, dtype=_sum_dtype(weight)) if needed[1] else None,
            torch.zeros_like(bias, dtype=_sum_dtype(bias)) if bias is not None and needed[2] else None,
        )

    def add(self, at: slice, words: slice, dx: Tensor, hidden: Tensor, w: Tensor) -> None:
        """The share of a tile, from the gradient dx [c, W] of its logits. The first rows come first for all words."""
        if self.hidden is not None:
            _add_product(self.hidden[at], dx, w, fresh=False)
        if self.weight is not None:
            _add_product(self.weight[words], dx.T, hidden.to(dx.dtype), fresh=at.start == 0)
        if self.bias is not None:
            self.bias[words] += dx.sum(0, dtype=self.bias.dtype)


def _add_product(total: Tensor, a: Tensor, b: Tensor, *, fresh: bool) -> None:
    """total += a @ b; `fresh`: whatever `total` held is overwritten."""
    if total.dtype == a.dtype:
        total.addmm_(a, b, beta=0 if fresh else 1)
    elif fresh:  # half-precision products at their own speed, added up in float32
        total.copy_(a @ b)
    else:
        total.add_(a @ b)


def _sum_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


class _LinearLogProbs(torch.autograd.Function):
    """log p(target) and entropy of softmax(transform(hidden @ weightᵀ + bias)).

    Logits are made again in backward. Where only `hidden` needs a gradient (a frozen head, as under adapters), forward keeps
    d log p / d hidden = Σ_v (onehot − p)_v · dz_v/d hidden instead, [P, H], and backward is one multiplication.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        transform: Transform,
        entropy: bool,
        hits: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        ctx.set_materialize_grads(False)
        device = hidden.device.type
        ctx.dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        w, b = weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype)
        ctx.transform = transform
        needs = ctx.needs_input_grad
        jacobian = torch.empty_like(hidden) if needs[0] and not (needs[1] or needs[2]) else None
        cut = Tiles.of if jacobian is None else Tiles.whole
        ctx.tiles = cut(len(hidden), len(w), hidden.device)
        found: list[Reduced] = []
        with torch.autocast(device, enabled=False):
            for at in ctx.tiles.rows:
                running = Running(targets[at], wide(w[:0]).dtype, entropy, hits)
                for words in ctx.tiles.words:
                    z = transform(_product(hidden[at], w[words], None if b is None else b[words]))
                    kept = z.clone() if jacobian is not None else z
                    running.add(z, words.start)
                found.append(running.reduced())
                if jacobian is not None:
                    logps, lse = found[-1][:2]
                    inside = within(targets[at], 0, len(w))
                    dx = _product_gradient(kept, transform, lse, inside, torch.ones_like(logps))
                    jacobian[at] = dx.to(ctx.dtype) @ w
        logps, lse, spread, hit = (None if c[0] is None else torch.cat(c) for c in zip(*found, strict=True))  # type: ignore[arg-type]
        ctx.save_for_backward(hidden, weight, bias, targets, lse, spread, jacobian)
        if hit is not None:
            ctx.mark_non_differentiable(hit)
        return logps, spread, hit  # type: ignore[return-value]

    @staticmethod
    def backward(
        ctx: Any, grad_logps: Tensor | None, grad_entropy: Tensor | None, _: Any
    ) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, lse, spread, jacobian = ctx.saved_tensors
        if grad_logps is None:
            grad_logps = torch.zeros_like(lse)
        if grad_entropy is not None and not bool(grad_entropy.any()):
            grad_entropy = None
        if jacobian is not None and grad_entropy is None:
            return (jacobian * grad_logps[:, None]).to(hidden.dtype), *[None] * 6
        w, b = weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype)
        grads = _Gradients.asked(ctx.needs_input_grad, hidden, weight, bias)
        with torch.autocast(hidden.device.type, enabled=False):
            for at in ctx.tiles.rows:
                of_entropy = None if grad_entropy is None else (spread[at], grad_entropy[at])
                for words in ctx.tiles.words:
                    part = w[words]
                    z = ctx.transform(_product(hidden[at], part, None if b is None else b[words]))
                    inside = within(targets[at], words.start, len(part))
                    dx = _product_gradient(z, ctx.transform, lse[at], inside, grad_logps[at], of_entropy)
                    grads.add(at, words, dx.to(ctx.dtype), hidden[at], part)
        return (
            None if grads.hidden is None else grads.hidden.to(hidden.dtype),
            None if grads.weight is None else grads.weight.to(weight.dtype),
            None if grads.bias is None else grads.bias.to(bias.dtype),
            *[None] * 4,
        )


def _product_gradient(
    z: Tensor,
    transform: Transform,
    lse: Tensor,
    inside: tuple[Tensor, Tensor],
    grad_logps: Tensor,
    of_entropy: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """[c, W]: the gradient of hidden @ weightᵀ, whose transformed logits z are overwritten.

    dz is g·(onehot − p) for the log-probability, −g·p·(log p + H) for the entropy (H, g).
    """
    log_p = z.sub_(lse[:, None]) if transform.softcap is None else z - lse[:, None]
    if of_entropy is None:
        dz = log_p.exp_().mul_(-grad_logps[:, None])
    else:
        spread, grad_entropy = of_entropy
        p = log_p.exp()
        inner = log_p.clamp_(min=torch.finfo(log_p.dtype).min).add_(spread[:, None])
        dz = inner.mul_(grad_entropy[:, None]).add_(grad_logps[:, None]).mul_(p).neg_()
    where, here = inside
    dz.scatter_add_(1, where, torch.where(here, grad_logps, 0.0)[:, None].to(dz.dtype))
    return transform.backward(dz, z)


def head_scores(
    head: nn.Module,
    hidden: Tensor,
    targets: Tensor,
    transform: Transform,
    *,
    entropy: bool = False,
    hits: bool = False,
) -> dict[str, Tensor]:
    """{"logps", "entropy"?, "hits"?}: each [P] float32, for hidden states [P, H] and the tokens [P] that follow them.

    A plain linear head takes the fast path; any other module (an adapted or quantised head) is called chunk by chunk with
    its activations recomputed in backward. Entropy carries a gradient on both paths.
    """
    names = ("logps", "entropy", "hits")
    if type(head).forward is nn.Linear.forward and len(
        hidden
    ):  # also where FSDP made a class of its own of it
        out = _LinearLogProbs.apply(hidden, head.weight, head.bias, targets, transform, entropy, hits)
        return {k: v for k, v in zip(names, out, strict=True) if v is not None}
    return _module_scores(head, hidden, targets, transform, entropy, hits)


def _module_scores(
    head: nn.Module, hidden: Tensor, targets: Tensor, transform: Transform, entropy: bool, hits: bool
) -> dict[str, Tensor]:
    def chunk(h: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        logps, _, spread, hit = reduce(transform(wide(head(h))), y, entropy, hits)
        return logps, spread, hit

    rows = chunk_rows(getattr(head, "out_features", 1 << 16), hidden.device)
    found = [
        checkpoint(chunk, h, y, use_reentrant=False) if torch.is_grad_enabled() else chunk(h, y)
        for h, y in zip(hidden.split(rows), targets.split(rows), strict=True)
    ]
    names = ("logps", "entropy", "hits")
    return {k: torch.cat(c) for k, c in zip(names, zip(*found, strict=True), strict=True) if c[0] is not None}
