"""Sampling inside the process, on the KV cache.

A prompt is read once however many samples it gets; rows of similar length are read together; a finished row leaves the batch.
`ragged` and `padded` are the two ways to read; this file knows what is drawn and when a row is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import padded, ragged
from .draw import Drawn, draw
from .modes import evaluation
from .params import Completion, RolloutStats, SamplingParams
from .products import in_blocks
from .request import check_request


def sample(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    *,
    n: int = 1,
    seeds: Sequence[int],
    rows: int | None = None,
    limits: Sequence[int] | None = None,
    stats: RolloutStats | None = None,
) -> list[Completion]:
    """`n` completions of each prompt (token ids); sample j of prompt i is item i·n + j and uses `seeds[i·n + j]`.

    A completion depends on the weights, its prompt, `params` and its own seed, not on what is decoded beside it. At most
    `rows` rows are decoded at once (default: all); `limits` [B]: no more than so many tokens for each completion; `stats` is
    added to. The model is left as found, its generation_config unread.

    Raises ValueError for a request that cannot be met, FloatingPointError when the logits of a row are not numbers.
    """
    check_request(model, prompts, params, n=n, seeds=seeds, rows=rows, limits=limits)
    stats = RolloutStats() if stats is None else stats
    rows = rows or max(1, len(prompts) * n)
    done: dict[int, Completion] = {}
    longest = max(map(len, prompts), default=0) + params.max_new_tokens
    with torch.no_grad(), evaluation(model), in_blocks(model):
        way = ragged if ragged.suits(model, longest) else padded
        for picked in _groups(prompts, max(1, rows // n)):
            prefix = way.read(model, [prompts[i] for i in picked], stats)
            wanted = [(at, i * n + j) for at, i in enumerate(picked) for j in range(n)]
            for start in range(0, len(wanted), rows):
                part = wanted[start : start + rows]
                live = prefix.start([at for at, _ in part], last=start + rows >= len(wanted))
                lot = _lot([(row, prompts[row // n]) for _, row in part], params, seeds, limits, live.logits)
                done.update(_decode(live, lot, params, stats))
    stats.useful_prefill += sum(map(len, set(map(tuple, prompts))))
    stats.sampled_tokens += sum(map(len, done.values()))
    # The first token of a completion comes from its prompt, and nothing is read after the last.
    stats.useful_steps += sum(map(len, done.values())) - len(done)
    return [done[row] for row in range(len(prompts) * n)]


def _groups(prompts: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Prompt numbers, `size` at a time, prompts of similar length together."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _uniforms(seed: int, count: int) -> Tensor:
    """[count] float64 in [0, 1), from a generator of this row's own; a longer draw begins with the shorter one."""
    # The CPU generator reads the low 32 bits of a seed only: fold the high ones in, so that they count too.
    folded = (seed ^ ((seed >> 32) * 0x9E3779B1)) & 0xFFFFFFFF
    return torch.rand(count, generator=torch.Generator().manual_seed(folded), dtype=torch.float64)


@dataclass
class _Lot:
    """What decides the tokens of the rows beside their logits. index: the output rows; uniforms [R, max_new_tokens] float64;
    limits: the most tokens for each; seen [R, V] bool: tokens of the prompt or completion, None where nobody asks."""

    index: list[int]
    uniforms: Tensor
    limits: list[int]
    seen: Tensor | None

    def select(self, keep: list[int]) -> None:
        """Only the rows `keep`."""
        self.index = [self.index[k] for k in keep]
        self.uniforms = self.uniforms[keep]
        self.limits = [self.limits[k] for k in keep]
        self.seen = None if self.seen is None else self.seen[keep]


def _lot(
    wanted: list[tuple[int, Sequence[int]]],
    params: SamplingParams,
    seeds: Sequence[int],
    limits: Sequence[int] | None,
    like: Tensor,
) -> _Lot:
    """Of (output row, prompt) pairs; `like` [R, V]: their logits."""
    uniforms = torch.stack([_uniforms(seeds[i], params.max_new_tokens) for i, _ in wanted])
    seen = None
    if params.repetition_penalty != 1:
        seen = torch.zeros_like(like, dtype=torch.bool)
        for row, (_, prompt) in enumerate(wanted):
            seen[row, torch.as_tensor(prompt, dtype=torch.long, device=like.device)] = True
    most = params.max_new_tokens
    allowed = [most if limits is None else min(most, limits[i]) for i, _ in wanted]
    return _Lot([i for i, _ in wanted], uniforms.to(like.device), allowed, seen)


def _decode(
    live: ragged.Rows | padded.Rows, lot: _Lot, params: SamplingParams, stats: RolloutStats
) -> dict[int, Completion]:
    """{output row: completion}; rows leave `live` as they finish."""
    tokens: dict[int, list[tuple[float, ...]]] = {row: [] for row in lot.index}
    for step in range(params.max_new_tokens):
        drawn = draw(live.logits, params, lot.uniforms[:, step], lot.seen)
        facts = _facts(drawn, lot.index, step)
        for row, fact in zip(lot.index, facts, strict=True):
            tokens[row].append(fact)
        going = zip(facts, lot.limits, strict=True)
        keep = [
            k for k, (fact, limit) in enumerate(going) if step + 1 < limit and fact[0] not in params.stop_ids
        ]
        if not keep:
            break
        chosen = drawn.tokens
        if lot.seen is not None:
            lot.seen.scatter_(1, chosen[:, None], True)
        if len(keep) < len(lot.index):
            live.select(keep)
            lot.select(keep)
            chosen = chosen[keep]
        live.advance(chosen)
        stats.decode_steps += 1
        stats.row_steps += len(chosen)
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
