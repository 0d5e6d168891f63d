"""Attention without padding and without copies of prompts, for prompts that are read and for tokens that are decoded.

Prompts are laid end to end and each sees itself. A decoded token sees its prompt, whose keys exist once however many samples
there are, and its own completion, which is as long in every row; each part has its own softmax, and the parts are merged by their
log-sum-exps. All queries that look at one prompt are one matrix. Models hand a 4-dimensional mask through to the attention
function unchanged, so `MARK` stands in its place; any other call goes to the function that was registered before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

MARK = torch.zeros(1, 1, 1, 1, dtype=torch.int8)
"""In place of an attention mask."""

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


class Keys(Protocol):
    """One layer's memory: keys and values [1, kv, L, D] of each prompt that is decoded from."""

    prompts: list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Reading:
    """One forward pass. layers: the memory of each; lengths: where prompts are read, the tokens of each; rows: where tokens are
    decoded, how many rows go on from each of the layers' prompts, in order."""

    layers: list[Any]
    lengths: list[int] | None = None
    rows: list[int] | None = None


_reading: ContextVar[Reading | None] = ContextVar("reading", default=None)


@contextmanager
def reading(what: Reading) -> Iterator[None]:
    """Attention called with `MARK` is that of `what`."""
    token = _reading.set(what)
    try:
        yield
    finally:
        _reading.reset(token)


def prompt_attention(
    query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float | None
) -> Tensor:
    """Causal attention [1, heads, N, D] of prompts laid end to end: query [1, heads, N, D], key and value [1, kv, N, D]."""
    times = query.shape[1] // key.shape[1]
    if times > 1:
        key, value = (x.repeat_interleave(times, dim=1) for x in (key, value))
    parts = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    return torch.cat(
        [scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale) for q, k, v in parts], dim=2
    )


def decode_attention(
    query: Tensor,
    own: tuple[Tensor, Tensor],
    prompts: list[tuple[Tensor, Tensor]],
    rows: list[int],
    scale: float | None,
) -> Tensor:
    """[R, heads, 1, D]: what each row's one query [R, heads, 1, D] finds in its prompt and its own keys and values [R, kv, t, D].

    The first rows[0] rows go on from prompts[0], the next rows[1] from prompts[1], and so on.
    """
    count, heads, _, size = query.shape
    kv = own[0].shape[1]
    # Nothing after the query's own token is in the memory, so queries of one head and of several rows can be one matrix.
    grouped = query.to(own[1].dtype).contiguous().view(count, kv, heads // kv, size)
    found, found_lse = _flash(grouped, *own, 0.0, False, scale=scale)
    seen, seen_lse = [], []
    for part, (key, value), n in zip(grouped.split(rows), prompts, rows, strict=True):
        asked = part.transpose(0, 1).reshape(1, kv, -1, size)
        out, lse = _flash(asked, key, value, 0.0, False, scale=scale)
        seen.append(out.reshape(kv, n, -1, size).transpose(0, 1))
        seen_lse.append(lse.reshape(kv, n, -1).transpose(0, 1))
    before, before_lse = torch.cat(seen), torch.cat(seen_lse)
    # softmax over both parts = the parts' own softmaxes, weighted by σ(± difference of the log-sum-exps).
    share = torch.sigmoid(before_lse - found_lse)[..., None]
    merged = torch.lerp(found.to(share.dtype), before.to(share.dtype), share)
    return merged.to(own[1].dtype).reshape(count, heads, 1, size)


def _aware(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        now = _reading.get()
        if now is None or not isinstance(attention_mask, Tensor) or attention_mask.dtype != MARK.dtype:
            return original(module, query, key, value, attention_mask, **kwargs)
        unknown = [k for k in ("softcap", "s_aux", "position_bias") if kwargs.get(k) is not None]
        if unknown:
            raise ValueError(f"attention without padding does not know {unknown}")
        scale = kwargs.get("scaling")
        if now.rows is None:
            out = prompt_attention(query, key, value, now.lengths or [], scale)
        else:
            out = decode_attention(query, (key, value), now.layers[module.layer_idx].prompts, now.rows, scale)
        return out.transpose(1, 2).contiguous(), None

    attention.knows_reading = True  # type: ignore[attr-defined]
    return attention


def install() -> None:
    """Teach the registered `sdpa` attention to know `MARK`; every other call reaches it as before. Idempotent."""
    interface = AttentionInterface()
    original = interface["sdpa"]
    if not getattr(original, "knows_reading", False):
        AttentionInterface.register("sdpa", _aware(original))
