"""Attention over rows laid end to end, without a [N, N] mask and without padding.

A packed batch is one sequence of N tokens in segments. A segment is a row of its own, or goes on from an earlier one: a
completion from the prompt it shares with others, which it then sees whole. The attention mask is not a mask but a description:
an int32 tensor [1, 1, 2, S + 1] of the segments' boundaries and of the segment that each goes on from (−1: none). Models hand a
4-dimensional mask through to the attention function unchanged, so the description arrives wherever attention is computed, also
when a layer is computed again for gradient checkpointing. Any other call goes to the function that was registered before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

DESCRIPTION = torch.int32
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Segments:
    """lengths: tokens of each segment, in order; after: the earlier segment that each goes on from, −1 for none."""

    lengths: list[int]
    after: list[int]

    def describe(self, device: torch.device) -> Tensor:
        """In place of an attention mask: [1, 1, 2, S + 1]."""
        ends = torch.tensor([0, *self.lengths]).cumsum(0)
        return torch.stack([ends, torch.tensor([*self.after, -1])]).to(DESCRIPTION)[None, None].to(device)

    @classmethod
    def read(cls, mask: Tensor) -> Segments:
        """The inverse of `describe`."""
        ends, after = mask[0, 0].tolist()
        return cls([end - start for start, end in zip(ends[:-1], ends[1:], strict=True)], after[:-1])


def is_description(mask: Any) -> bool:
    """Whether an attention mask is a description of segments."""
    return isinstance(mask, Tensor) and mask.dtype == DESCRIPTION and mask.dim() == 4


Memory = list[tuple[Tensor, Tensor]]
"""Keys and values [1, kv, n, D] of n tokens each."""


@dataclass
class Prompts:
    """What one pass over a model reads, so that another can go on from it without gradient: keys and values of the first
    `lengths[i]` tokens of segment i, by attention module. Segments of the second pass are `after` these prompts."""

    lengths: list[int]
    read: dict[nn.Module, Memory] = field(default_factory=dict)

    def keep(self, module: nn.Module, key: Tensor, value: Tensor, segments: Segments) -> None:
        """Note what a layer of the first pass has made."""
        parts = (x.detach().split(segments.lengths, dim=2) for x in (key, value))
        self.read[module] = [(k[:, :, :n], v[:, :, :n]) for k, v, n in zip(*parts, self.lengths, strict=True)]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """The pass inside is the first."""
        with _as(_keeping, self):
            yield

    @contextmanager
    def gone_on_from(self) -> Iterator[None]:
        """The pass inside is the second."""
        with _as(_going_on, self):
            yield


_keeping: ContextVar[Prompts | None] = ContextVar("keeping", default=None)
_going_on: ContextVar[Prompts | None] = ContextVar("going_on", default=None)


@contextmanager
def _as(variable: ContextVar[Prompts | None], value: Prompts) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def _repeat(x: Tensor, times: int) -> Tensor:
    return x if times == 1 else x.repeat_interleave(times, dim=1)


def _band(length: int, before: int, window: int | None, device: torch.device) -> Tensor:
    """[length, before + length] bool: what a token sees of the `before` tokens ahead of its segment and of the segment itself."""
    distance = (
        torch.arange(length, device=device)[:, None] + before - torch.arange(before + length, device=device)
    )
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


class _Continued(torch.autograd.Function):
    """Attention of a segment to an earlier one (whole) and to itself (causally), without laying their keys side by side.

    Each part has its own softmax; they are merged by their log-sum-exps. Backward needs the merged output and log-sum-exp only:
    the flash backward of each part with them is the gradient of the whole (Dao et al. 2022, 2205.14135, §3.1 and appendix B).
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, k0: Tensor, v0: Tensor, scale: float | None
    ) -> Tensor:
        own, lse_own = _forward(q, k, v, 0.0, True, scale=scale)
        before, lse_before = _forward(q, k0, v0, 0.0, False, scale=scale)
        lse = torch.logaddexp(lse_own, lse_before)
        out = own * (lse_own - lse).exp()[..., None] + before * (lse_before - lse).exp()[..., None]
        out = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, k0, v0, out, lse)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, k0, v0, out, lse = ctx.saved_tensors
        grad = grad.contiguous()
        dq, dk, dv = _backward(grad, q, k, v, out, lse, 0.0, True, scale=ctx.scale)
        more, dk0, dv0 = _backward(grad, q, k0, v0, out, lse, 0.0, False, scale=ctx.scale)
        return dq + more, dk, dv, dk0, dv0, None


def _continued(
    q: Tensor,
    own: tuple[Tensor, Tensor],
    before: tuple[Tensor, Tensor],
    dropout: float,
    scale: float | None,
    window: int | None,
) -> Tensor:
    """A segment that goes on from another: merged by log-sum-exps where the CPU's kernel can, else over joined keys."""
    k, v, k0, v0 = *own, *before
    if q.device.type == "cpu" and not dropout and window is None:
        return _Continued.apply(*(x.contiguous() for x in (q, k, v, k0, v0)), scale)
    mask = _band(k.shape[2], k0.shape[2], window, q.device)
    joined = torch.cat([k0, k], dim=2), torch.cat([v0, v], dim=2)
    return scaled_dot_product_attention(q, *joined, attn_mask=mask, dropout_p=dropout, scale=scale)


def segment_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    *,
    earlier: Memory | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
) -> Tensor:
    """Causal attention [1, N, heads, D] in which a segment sees itself and the segment it goes on from.

    query [1, heads, N, D]; key and value [1, kv, N, D], kv dividing heads; earlier: the segments of another pass, which these go
    on from instead of each other.
    """
    times = query.shape[1] // key.shape[1]
    # split, not slices: its backward lays the parts' gradients side by side once, instead of adding N-sized ones per segment.
    parts = [x.split(segments.lengths, dim=2) for x in (query, _repeat(key, times), _repeat(value, times))]
    # The kernel wants keys in a row, and backward keeps what it was given: one copy for all who go on from a segment.
    sources = list(zip(parts[1], parts[2], strict=True)) if earlier is None else earlier
    held = {
        i: tuple(_repeat(x, query.shape[1] // x.shape[1]).contiguous() for x in sources[i])
        for i in {*segments.after} - {-1}
    }
    out = []
    for q, k, v, after in zip(*parts, segments.after, strict=True):
        n = q.shape[2]
        if after >= 0:
            before = held[after]
            fits = sliding_window is None or before[0].shape[2] + n <= sliding_window
            out.append(_continued(q, (k, v), before, dropout, scaling, None if fits else sliding_window))
            continue
        banded = sliding_window is not None and n > sliding_window
        mask = _band(n, 0, sliding_window, q.device) if banded else None
        out.append(
            scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling, is_causal=not banded
            )
        )
    return torch.cat([part.transpose(1, 2) for part in out], dim=1)


def _aware(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        if not is_description(attention_mask):
            return original(module, query, key, value, attention_mask, **kwargs)
        unknown = [k for k in ("softcap", "s_aux", "position_bias") if kwargs.get(k) is not None]
        if unknown:
            raise ValueError(f"packed attention does not know {unknown}; use layout='padded'")
        known = {k: kwargs[k] for k in ("dropout", "scaling", "sliding_window") if k in kwargs}
        segments, keeping, going_on = Segments.read(attention_mask), _keeping.get(), _going_on.get()
        if keeping is not None:
            keeping.keep(module, key, value, segments)
        earlier = None if going_on is None else going_on.read[module]
        return segment_attention(query, key, value, segments, earlier=earlier, **known), None

    attention.knows_segments = True  # type: ignore[attr-defined]
    return attention


def install() -> None:
    """Teach the registered `sdpa` attention to read descriptions; every other call reaches it as before. Idempotent."""
    interface = AttentionInterface()
    original = interface["sdpa"]
    if not getattr(original, "knows_segments", False):
        AttentionInterface.register("sdpa", _aware(original))
