"""The vocabulary head that returns log-probabilities instead of logits.

Logits exist for a few rows at a time: a chunk is projected, reduced to its log-sum-exp, its target's logit, and (when asked) its
entropy and its arg-max, and dropped. Backward projects the chunk again. Memory is that of one chunk, whatever the vocabulary,
the batch or the length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 26}
"""Logits alive at once (float32), by device type: 32 MiB on a CPU, 256 MiB on a GPU."""


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

    def backward(self, grad: Tensor, z: Tensor | None) -> Tensor:
        """dx from dz, in place; `z` are the transformed logits (needed for a soft-cap only)."""
        grad.mul_(self.scale / self.temperature)
        if self.softcap is not None and z is not None:
            grad.mul_(1 - (z * (self.temperature / self.softcap)) ** 2)
        return grad


def wide(x: Tensor) -> Tensor:
    """`x` in float32, or as it is where it is float64: a float64 model is scored in float64."""
    return x if x.dtype == torch.float64 else x.float()


def _chunk_rows(vocab: int, device: torch.device) -> int:
    return max(1, CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cuda"]) // vocab)


Reduced = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


def _reduce(z: Tensor, targets: Tensor, entropy: bool, hits: bool) -> Reduced:
    """(log-prob of the target, log-sum-exp, entropy, hit) of logits [c, V], for autograd to differentiate."""
    lse = z.logsumexp(-1)
    logps = z.gather(-1, targets[:, None]).squeeze(-1) - lse
    hit = (z.argmax(-1) == targets).to(z.dtype) if hits else None
    if not entropy:
        return logps, lse, None, hit
    p = (z - lse[:, None]).exp()
    return logps, lse, lse - (p * torch.where(p > 0, z, 0.0)).sum(-1), hit


def _reduce_in_place(z: Tensor, targets: Tensor, entropy: bool, hits: bool) -> Reduced:
    """`_reduce` where no gradient flows: the same numbers in fewer passes over [c, V]; overwrites z."""
    top, best = z.max(-1) if hits else (z.amax(-1), None)
    z.sub_(top[:, None])
    picked = z.gather(-1, targets[:, None]).squeeze(-1)
    e = z.exp() if entropy else z.exp_()
    total = e.sum(-1)
    log_total = total.log()
    hit = (best == targets).to(z.dtype) if best is not None else None
    spread = None
    if entropy:
        # A logit of −∞ has weight 0 in Σ e·z; exp() of the least finite number is 0 too.
        z.clamp_(min=torch.finfo(z.dtype).min)
        spread = log_total - torch.linalg.vecdot(e, z) / total
    return picked - log_total, top + log_total, spread, hit


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    z = rows.to(weight.dtype) @ weight.T
    if bias is not None:
        z = z.add_(bias)
    return wide(z)


@dataclass
class _Gradients:
    """What backward adds up, chunk by chunk; None where nothing is asked."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def asked(
        cls, needed: tuple[bool, ...], hidden: Tensor, weight: Tensor, bias: Tensor | None
    ) -> _Gradients:
        return cls(
            torch.empty_like(hidden) if needed[0] else None,
            torch.zeros_like(weight, dtype=_sum_dtype(weight)) if needed[1] else None,
            torch.zeros_like(bias, dtype=_sum_dtype(bias)) if bias is not None and needed[2] else None,
        )

    def add(self, at: slice, dx: Tensor, hidden: Tensor, w: Tensor) -> None:
        """The share of the rows `at`, from the gradient dx [c, V] of their logits."""
        if self.hidden is not None:
            self.hidden[at] = dx @ w
        if self.weight is not None and self.weight.dtype == dx.dtype:
            self.weight.addmm_(dx.T, hidden[at].to(dx.dtype))
        elif self.weight is not None:  # half-precision products at their own speed, added up in float32
            self.weight.add_(dx.T @ hidden[at].to(dx.dtype))
        if self.bias is not None:
            self.bias.add_(dx.sum(0, dtype=self.bias.dtype))


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
        ctx.transform, ctx.rows = transform, _chunk_rows(weight.shape[0], hidden.device)
        needs = ctx.needs_input_grad
        jacobian = torch.empty_like(hidden) if needs[0] and not (needs[1] or needs[2]) else None
        found: list[Reduced] = []
        with torch.autocast(device, enabled=False):
            for start in range(0, len(hidden), ctx.rows):
                at = slice(start, start + ctx.rows)
                z = transform(_product(hidden[at], w, b))
                kept = z.clone() if jacobian is not None else z
                found.append(_reduce_in_place(z, targets[at], entropy, hits))
                if jacobian is not None:
                    logps, lse = found[-1][:2]
                    dz = _logit_gradient(kept, lse, targets[at], torch.ones_like(logps), None, None)
                    jacobian[at] = transform.backward(dz, kept).to(ctx.dtype) @ w
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
            for start in range(0, len(hidden), ctx.rows):
                at = slice(start, start + ctx.rows)
                z = ctx.transform(_product(hidden[at], w, b))
                of_entropy = None if grad_entropy is None else grad_entropy[at]
                dz = _logit_gradient(
                    z,
                    lse[at],
                    targets[at],
                    grad_logps[at],
                    None if spread is None else spread[at],
                    of_entropy,
                )
                grads.add(at, ctx.transform.backward(dz, z).to(ctx.dtype), hidden, w)
        return (
            grads.hidden,
            None if grads.weight is None else grads.weight.to(weight.dtype),
            None if grads.bias is None else grads.bias.to(bias.dtype),
            *[None] * 4,
        )


def _logit_gradient(
    z: Tensor,
    lse: Tensor,
    targets: Tensor,
    grad_logps: Tensor,
    spread: Tensor | None,
    grad_entropy: Tensor | None,
) -> Tensor:
    """dz [c, V]: g·(onehot − p) for the log-probability, −g·p·(log p + H) for the entropy. Leaves z as it is."""
    log_p = z - lse[:, None]
    if spread is None or grad_entropy is None:
        dz = log_p.exp_().mul_(-grad_logps[:, None])
    else:
        p = log_p.exp()
        inner = log_p.clamp_(min=torch.finfo(log_p.dtype).min).add_(spread[:, None])
        dz = inner.mul_(grad_entropy[:, None]).add_(grad_logps[:, None]).mul_(p).neg_()
    return dz.scatter_add_(1, targets[:, None], grad_logps[:, None].to(dz.dtype))


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
    if type(head) is nn.Linear and len(hidden):
        out = _LinearLogProbs.apply(hidden, head.weight, head.bias, targets, transform, entropy, hits)
        return {k: v for k, v in zip(names, out, strict=True) if v is not None}
    return _module_scores(head, hidden, targets, transform, entropy, hits)


def _module_scores(
    head: nn.Module, hidden: Tensor, targets: Tensor, transform: Transform, entropy: bool, hits: bool
) -> dict[str, Tensor]:
    def chunk(h: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        logps, _, spread, hit = _reduce(transform(wide(head(h))), y, entropy, hits)
        return logps, spread, hit

    rows = _chunk_rows(getattr(head, "out_features", 1 << 16), hidden.device)
    found = [
        checkpoint(chunk, h, y, use_reentrant=False) if torch.is_grad_enabled() else chunk(h, y)
        for h, y in zip(hidden.split(rows), targets.split(rows), strict=True)
    ]
    names = ("logps", "entropy", "hits")
    return {k: torch.cat(c) for k, c in zip(names, zip(*found, strict=True), strict=True) if c[0] is not None}
