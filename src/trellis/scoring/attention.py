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

from .flash import EndToEnd
from .segments import DESCRIPTION, Memory, Pieces, Segments, repeated


def is_description(mask: Any) -> bool:
    """Whether an attention mask is a description of segments."""
    return isinstance(mask, Tensor) and mask.dtype == DESCRIPTION and mask.dim() == 4


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


def _band(length: int, before: int, window: int | None, device: torch.device) -> Tensor:
    """[length, before + length] bool: what a token sees of the `before` tokens ahead of its segment and of the segment itself."""
    distance = (
        torch.arange(length, device=device)[:, None] + before - torch.arange(before + length, device=device)
    )
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


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
    query, key, value, earlier = _in_one_precision(query, key, value, earlier)
    pieces = Pieces(segments, earlier)
    cut = sliding_window is not None and pieces.sight > sliding_window
    if query.device.type == "cpu" and query.shape[-1] == value.shape[-1] and not (dropout or cut):
        return EndToEnd.apply(query, key, value, pieces, scaling)
    return _one_by_one(query, key, value, segments, earlier, dropout, scaling, sliding_window)


def _in_one_precision(
    query: Tensor, key: Tensor, value: Tensor, earlier: Memory | None
) -> tuple[Tensor, Tensor, Tensor, Memory | None]:
    """What autocast does for the attention function, which kernels called by name do not have done for them."""
    if not torch.is_autocast_enabled(query.device.type):
        return query, key, value, earlier
    kind = torch.get_autocast_dtype(query.device.type)
    before = earlier and [(k.to(kind), v.to(kind)) for k, v in earlier]
    return query.to(kind), key.to(kind), value.to(kind), before


def _one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    earlier: Memory | None,
    dropout: float,
    scale: float | None,
    window: int | None,
) -> Tensor:
    """The same where the CPU's kernel cannot: a call per segment, over the keys that it goes on from and its own, joined."""
    times = query.shape[1] // key.shape[1]
    # split, not slices: its backward lays the parts' gradients side by side once, instead of adding N-sized ones per segment.
    parts = [x.split(segments.lengths, dim=2) for x in (query, repeated(key, times), repeated(value, times))]
    sources = list(zip(parts[1], parts[2], strict=True)) if earlier is None else earlier
    out = []
    for q, k, v, after in zip(*parts, segments.after, strict=True):
        before = 0
        if after >= 0:
            k0, v0 = (repeated(x, query.shape[1] // x.shape[1]) for x in sources[after])
            k, v, before = torch.cat([k0, k], dim=2), torch.cat([v0, v], dim=2), k0.shape[2]
        banded = bool(before) or (window is not None and q.shape[2] > window)
        mask = _band(q.shape[2], before, window, q.device) if banded else None
        out.append(
            scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale, is_causal=not banded
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
