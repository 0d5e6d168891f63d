"""Attention over segments by the CPU's flash kernel, as one node of the graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .segments import Pieces, repeated

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _summed(x: Tensor, times: int) -> Tensor:
    """The gradient of `repeated`."""
    return x if times == 1 else x.unflatten(1, (-1, times)).sum(2)


class EndToEnd(torch.autograd.Function):
    """Attention [1, N, heads, D] of segments to themselves (causally) and to those that they go on from (whole).

    query [1, heads, N, D]; key and value [1, kv, N, D], kv dividing heads. What comes out lies in one tensor, which the layer's
    next matrix keeps anyway; keys and values are kept once for all heads that read them. A segment's two parts have a softmax
    each and are merged by their log-sum-exps. Backward needs the merged output and log-sum-exp only: the flash backward of each
    part with them is the gradient of the whole (Dao et al. 2022, 2205.14135, §3.1 and appendix B).
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, pieces: Pieces, scale: float | None
    ) -> Tensor:
        times, sums = query.shape[1] // key.shape[1], []
        out = query.new_empty(query.transpose(1, 2).shape)
        for at, span in enumerate(pieces.spans):
            q, k, v = query[:, :, span], *(repeated(x[:, :, span], times) for x in (key, value))
            found, lse = _forward(q, k, v, 0.0, True, scale=scale)
            if (source := pieces.before(at, key, value)) is not None:
                more, lse_more = _forward(q, *(repeated(x, times) for x in source), 0.0, False, scale=scale)
                own, lse = lse, torch.logaddexp(lse, lse_more)
                found = found * (own - lse).exp()[..., None] + more * (lse_more - lse).exp()[..., None]
            out[:, span] = found.transpose(1, 2)
            sums.append(lse)
        ctx.save_for_backward(query, key, value, out, torch.cat(sums, dim=2))
        ctx.pieces, ctx.scale = pieces, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, sums = ctx.saved_tensors
        pieces: Pieces = ctx.pieces
        times = query.shape[1] // key.shape[1]

        def of(span: slice, keys: tuple[Tensor, Tensor], causal: bool) -> tuple[Tensor, ...]:
            """Gradients of a segment's queries, and of keys and values that it sees."""
            g, o = (x[:, span].transpose(1, 2) for x in (grad, out))
            seen = (repeated(x, times) for x in keys)
            lse = sums[:, :, span].contiguous()
            dq, *others = _backward(g, query[:, :, span], *seen, o, lse, 0.0, causal, scale=ctx.scale)
            return dq, *(_summed(x, times) for x in others)

        whole = [torch.empty_like(x) for x in (query, key, value)]
        for at, span in enumerate(pieces.spans):
            for total, part in zip(whole, of(span, (key[:, :, span], value[:, :, span]), True), strict=True):
                total[:, :, span] = part
            if (source := pieces.before(at, key, value)) is None:
                continue
            parts = of(span, source, False)
            whole[0][:, :, span] += parts[0]
            if pieces.earlier is None:
                before = pieces.spans[pieces.segments.after[at]]
                for total, part in zip(whole[1:], parts[1:], strict=True):
                    total[:, :, before] += part
        return *whole, None, None
