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

CHUNK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Logits alive at once (float32), by device type: 16 MiB on a CPU, 256 MiB on a GPU."""


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


def _chunk_rows(vocab: int, device: torch.device) -> int:
    return max(1, CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS["cuda"]) // vocab)


def _reduce(
    z: Tensor, targets: Tensor, entropy: bool, hits: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """(log-prob of the target, log-sum-exp, entropy, hit) of float32 logits [c, V]; may overwrite z when no gradient flows."""
    lse = z.logsumexp(-1)
    logps = z.gather(-1, targets[:, None]).squeeze(-1) - lse
    hit = (z.argmax(-1) == targets).float() if hits else None
    spread = None
    if entropy:
        p = (z - lse[:, None]).exp()
        spread = lse - (p * torch.where(p > 0, z, 0.0)).sum(-1)
    return logps, lse, spread, hit


class _LinearLogProbs(torch.autograd.Function):
    """log p(target) and entropy of softmax(transform(hidden @ weightᵀ + bias)), with the logits recomputed in backward."""

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
        device = hidden.device.type
        ctx.dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        rows = _chunk_rows(weight.shape[0], hidden.device)
        w = weight.to(ctx.dtype)
        found: list[tuple[Tensor, Tensor, Tensor | None, Tensor | None]] = []
        with torch.autocast(device, enabled=False):
            for h, y in zip(hidden.split(rows), targets.split(rows), strict=True):
                found.append(_reduce(transform(_project(h, w, bias)), y, entropy, hits))
        logps, lse, spread, hit = (None if c[0] is None else torch.cat(c) for c in zip(*found, strict=True))  # type: ignore[arg-type]
        ctx.transform, ctx.rows = transform, rows
        ctx.save_for_backward(hidden, weight, bias, targets, lse, spread)
        if hit is not None:
            ctx.mark_non_differentiable(hit)
        return logps, spread, hit  # type: ignore[return-value]

    @staticmethod
    def backward(
        ctx: Any, grad_logps: Tensor, grad_entropy: Tensor | None, _: Any
    ) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, lse, spread = ctx.saved_tensors
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        w = weight.to(ctx.dtype)
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = (
            torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if need_weight else None
        )
        grad_bias = torch.zeros(bias.shape, dtype=torch.float32, device=bias.device) if need_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(hidden), ctx.rows):
                at = slice(start, start + ctx.rows)
                z = ctx.transform(_project(hidden[at], w, bias))
                dz = _logit_gradient(z, lse[at], targets[at], grad_logps[at], spread, grad_entropy, at)
                dx = ctx.transform.backward(dz, z).to(ctx.dtype)
                if grad_hidden is not None:
                    grad_hidden[at] = (dx @ w).to(hidden.dtype)
                if grad_weight is not None:
                    grad_weight.addmm_(dx.T.float(), hidden[at].to(ctx.dtype).float())
                if grad_bias is not None:
                    grad_bias += dx.float().sum(0)
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            *[None] * 4,
        )


def _project(h: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    z = h.to(w.dtype) @ w.T
    if bias is not None:
        z = z + bias.to(w.dtype)
    return z.float()


def _logit_gradient(
    z: Tensor,
    lse: Tensor,
    targets: Tensor,
    grad_logps: Tensor,
    spread: Tensor | None,
    grad_entropy: Tensor | None,
    at: slice,
) -> Tensor:
    """dz [c, V]: g·(onehot − p) for the log-probability, −g·p·(log p + H) for the entropy. Leaves z as it is."""
    log_p = z - lse[:, None]
    if spread is None or grad_entropy is None or not bool(grad_entropy.any()):
        dz = log_p.exp_().mul_(-grad_logps[:, None])
    else:
        p = log_p.exp()
        inner = (
            log_p.clamp(min=torch.finfo(log_p.dtype).min).add_(spread[at, None]).mul_(grad_entropy[at, None])
        )
        dz = inner.add_(grad_logps[:, None]).mul_(p).neg_()
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
        logps, _, spread, hit = _reduce(transform(head(h).float()), y, entropy, hits)
        return logps, spread, hit

    rows = _chunk_rows(getattr(head, "out_features", 1 << 16), hidden.device)
    found = [
        checkpoint(chunk, h, y, use_reentrant=False) if torch.is_grad_enabled() else chunk(h, y)
        for h, y in zip(hidden.split(rows), targets.split(rows), strict=True)
    ]
    names = ("logps", "entropy", "hits")
    return {k: torch.cat(c) for k, c in zip(names, zip(*found, strict=True), strict=True) if c[0] is not None}
