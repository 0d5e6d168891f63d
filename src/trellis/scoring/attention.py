"""Attention over rows laid end to end, without a [N, N] mask and without padding.

A packed batch is one sequence of N tokens. Its attention mask is not a mask but a description: an int32 tensor [1, 1, 1, S + 1]
of the segments' boundaries. Models hand a 4-dimensional mask through to the attention function unchanged, so the description
arrives wherever attention is computed, also when a layer is computed again for gradient checkpointing. Any other call goes to
the function that was registered before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

SEGMENTS_DTYPE = torch.int32


def describe(lengths: list[int], device: torch.device) -> Tensor:
    """The boundaries [1, 1, 1, S + 1] of rows of these lengths, in place of an attention mask."""
    ends = torch.tensor([0, *lengths]).cumsum(0)
    return ends.to(SEGMENTS_DTYPE).view(1, 1, 1, -1).to(device)


def is_description(mask: Any) -> bool:
    """Whether an attention mask is a description of segments."""
    return isinstance(mask, Tensor) and mask.dtype == SEGMENTS_DTYPE and mask.dim() == 4


def _repeat(x: Tensor, times: int) -> Tensor:
    return x if times == 1 else x.repeat_interleave(times, dim=1)


def _band(length: int, window: int, device: torch.device) -> Tensor:
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance >= 0) & (distance < window)


def segment_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: list[int],
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
) -> Tensor:
    """Causal attention [1, N, heads, D] in which every segment sees itself alone.

    query [1, heads, N, D]; key and value [1, kv, N, D], kv dividing heads.
    """
    groups = query.shape[1] // key.shape[1]
    out = []
    for start, end in zip(ends[:-1], ends[1:], strict=True):
        q, k, v = query[:, :, start:end], key[:, :, start:end], value[:, :, start:end]
        banded = sliding_window is not None and end - start > sliding_window
        out.append(
            scaled_dot_product_attention(
                q,
                _repeat(k, groups),
                _repeat(v, groups),
                attn_mask=_band(end - start, sliding_window, q.device) if banded and sliding_window else None,
                dropout_p=dropout,
                scale=scaling,
                is_causal=not banded,
            )
        )
    return torch.cat(out, dim=2).transpose(1, 2).contiguous()


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
        return segment_attention(query, key, value, attention_mask.flatten().tolist(), **known), None

    attention.knows_segments = True  # type: ignore[attr-defined]
    return attention


def install() -> None:
    """Teach the registered `sdpa` attention to read descriptions; every other call reaches it as before. Idempotent."""
    interface = AttentionInterface()
    original = interface["sdpa"]
    if not getattr(original, "knows_segments", False):
        AttentionInterface.register("sdpa", _aware(original))
