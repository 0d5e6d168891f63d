"""Sampling inside the process, on the KV cache.

A prompt is read once however many samples it gets; rows of similar length are read together; a finished row leaves the batch.
Left padding exists in this file only.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .cache import growing_cache
from .draw import Drawn, draw
from .modes import evaluation
from .params import Completion, RolloutStats, SamplingParams
from .request import check_request


def sample(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    *,
    n: int = 1,
    seeds: Sequence[int],
    rows: int | None = None,
    stats: RolloutStats | None = None,
) -> list[Completion]:
    """`n` completions of each prompt (token ids); sample j of prompt i is item i·n + j and uses `seeds[i·n + j]`.

    A completion depends on the weights, its prompt, `params` and its own seed, not on what is decoded beside it. At most
    `rows` rows are decoded at once (default: all); `stats` is added to. The model is left as found, its generation_config unread.

    Raises ValueError for a request that cannot be met, FloatingPointError when the logits of a row are not numbers.
    """
    check_request(model, prompts, params, n=n, seeds=seeds, rows=rows)
    stats = RolloutStats() if stats is None else stats
    rows = rows or max(1, len(prompts) * n)
    done: dict[int, Completion] = {}
    with torch.no_grad(), evaluation(model):
        for picked in _groups(prompts, max(1, rows // n)):
            prefix = _prefill(model, [prompts[i] for i in picked], stats)
            wanted = [(at, i * n + j) for at, i in enumerate(picked) for j in range(n)]
            for start in range(0, len(wanted), rows):
                part = wanted[start : start + rows]
                last = start + rows >= len(wanted)
                live = _start(prefix if last else copy.deepcopy(prefix), part, params, seeds)
                done.update(_decode(model, live, params, stats))
    return [done[row] for row in range(len(prompts) * n)]


def _groups(prompts: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Prompt numbers, `size` at a time, prompts of similar length together."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


@dataclass
class _Rows:
    """Rows between two forward passes. cache, logits [R, V] and position [R] (of the next token) are those of the tokens read;
    mask [R, L] int64, or None without padding; index: the output rows; uniforms [R, max_new_tokens] float64."""

    cache: Any
    logits: Tensor
    position: Tensor
    mask: Tensor | None
    index: list[int]
    uniforms: Tensor

    def select(self, keep: list[int]) -> None:
        """Only the rows `keep`, in that order; a row may be repeated."""
        at = torch.tensor(keep, device=self.logits.device)
        self.cache.reorder_cache(at)
        self.logits, self.position = self.logits[at], self.position[at]
        self.mask = None if self.mask is None else self.mask[at]


def _prefill(model: nn.Module, prompts: list[Sequence[int]], stats: RolloutStats) -> _Rows:
    device = next(model.parameters()).device
    lengths = torch.tensor([len(p) for p in prompts])
    width = int(lengths.max())
    # Any id inside the embedding will do for padding; the tokenizer's pad id may lie outside.
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.as_tensor(prompt, dtype=torch.long)
    real = torch.arange(width)[None] >= (width - lengths)[:, None]
    mask = None if bool(real.all()) else real.long().to(device)
    position = (real.long().cumsum(1) - 1).clamp(min=0).to(device)
    stats.prefill_tokens += int(lengths.sum())
    stats.pad_tokens += int((~real).sum())
    cache = growing_cache(model.config)
    logits = _forward(model, ids.to(device), cache, position, mask, last_only=True)
    return _Rows(cache, logits, lengths.to(device), mask, [], torch.empty(0))


def _start(
    prefix: _Rows, wanted: list[tuple[int, int]], params: SamplingParams, seeds: Sequence[int]
) -> _Rows:
    """The rows of a prefill repeated for `wanted`: (row of the prefill, output row)."""
    at = [row for row, _ in wanted]
    if at != list(range(len(prefix.logits))):
        prefix.select(at)
    prefix.index = [row for _, row in wanted]
    device = prefix.logits.device
    prefix.uniforms = torch.stack([_uniforms(seeds[i], params.max_new_tokens) for i in prefix.index]).to(
        device
    )
    return prefix


def _uniforms(seed: int, count: int) -> Tensor:
    """[count] float64 in [0, 1), from a generator of this row's own; a longer draw begins with the shorter one."""
    # The CPU generator reads the low 32 bits of a seed only: fold the high ones in, so that they count too.
    folded = (seed ^ ((seed >> 32) * 0x9E3779B1)) & 0xFFFFFFFF
    return torch.rand(count, generator=torch.Generator().manual_seed(folded), dtype=torch.float64)


def _decode(
    model: nn.Module, live: _Rows, params: SamplingParams, stats: RolloutStats
) -> dict[int, Completion]:
    """{output row: completion}; rows leave `live` as they finish."""
    tokens: dict[int, list[tuple[float, ...]]] = {row: [] for row in live.index}
    for step in range(params.max_new_tokens):
        drawn = draw(live.logits, params, live.uniforms[:, step])
        facts = _facts(drawn, live.index, step)
        for row, fact in zip(live.index, facts, strict=True):
            tokens[row].append(fact)
        keep = [k for k, fact in enumerate(facts) if int(fact[0]) not in params.stop_ids]
        if not keep or step + 1 == params.max_new_tokens:
            break
        chosen = drawn.tokens
        if len(keep) < len(live.index):
            live.select(keep)
            live.index = [live.index[k] for k in keep]
            live.uniforms, chosen = live.uniforms[keep], chosen[keep]
        _advance(model, live, chosen)
        stats.decode_steps += 1
        stats.row_steps += len(live.index)
    return {row: _completion(facts, params) for row, facts in tokens.items()}


def _facts(drawn: Drawn, index: list[int], step: int) -> list[tuple[float, ...]]:
    """(token, logp, sampler logp) of each row, in the one transfer from the device that a step makes."""
    columns = [drawn.tokens, drawn.logps, drawn.sampler_logps, drawn.valid]
    facts = torch.stack([c.double() for c in columns], dim=1).tolist()
    broken = [row for row, fact in zip(index, facts, strict=True) if not fact[3]]
    if broken:
        raise FloatingPointError(
            f"row {min(broken)}, new token {step}: the model's logits are NaN or infinite, so no token can be drawn "
            f"({len(broken)} of {len(index)} rows). Its weights have probably diverged: lower the learning rate, or sample "
            "in float32 or bfloat16."
        )
    return [tuple(fact[:3]) for fact in facts]


def _completion(facts: list[tuple[float, ...]], params: SamplingParams) -> Completion:
    ids = [int(token) for token, _, _ in facts]
    reason = "stop" if ids[-1] in params.stop_ids else "length"
    return Completion(ids, [logp for _, logp, _ in facts], [logp for _, _, logp in facts], reason)  # type: ignore[arg-type]


def _advance(model: nn.Module, live: _Rows, tokens: Tensor) -> None:
    """Read one token per row."""
    if live.mask is not None:
        live.mask = torch.cat([live.mask, live.mask.new_ones(len(live.mask), 1)], dim=1)
    live.logits = _forward(
        model, tokens[:, None], live.cache, live.position[:, None], live.mask, last_only=False
    )
    live.position = live.position + 1


def _forward(
    model: nn.Module, ids: Tensor, cache: Any, position: Tensor, mask: Tensor | None, *, last_only: bool
) -> Tensor:
    """[R, V]: logits after the last of `ids`, which are added to `cache`."""
    optional = {"position_ids": position, "logits_to_keep": 1 if last_only else 0}
    known = _parameters(model)
    kwargs = {k: v for k, v in optional.items() if k in known}
    output = model(
        input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, return_dict=True, **kwargs
    )
    return output.logits[:, -1]


def _parameters(model: nn.Module) -> set[str]:
    """Names that the model's own forward takes (an adapter's wrapper takes anything)."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return set(inspect.signature(base.forward).parameters)
