"""From prompts and completions to right-padded rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..types import TokenBatch
from .params import Completion


def to_batch(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Completion],
    group: Sequence[int] | None = None,
    pad: int = 0,
) -> TokenBatch:
    """Rows of prompt + completion, masked in on what the policy sampled (a stop token too).

    `prompts`: one per completion, or one per n completions as `sample` returns them. `group` [B]: default, the prompt's number.
    Raises ValueError when the numbers of prompts and completions do not fit.
    """
    n, rest = divmod(len(completions), max(1, len(prompts)))
    if rest or (completions and not n):
        raise ValueError(
            f"{len(completions)} completions cannot be shared out evenly over {len(prompts)} prompts"
        )
    repeated = [prompt for prompt in prompts for _ in range(n)]
    pairs = list(zip(repeated, completions, strict=True))
    return TokenBatch.from_lists(
        [[*prompt, *completion.ids] for prompt, completion in pairs],
        [[0] * len(prompt) + [int(m) for m in completion.sampled] for prompt, completion in pairs],
        group=[i for i in range(len(prompts)) for _ in range(n)] if group is None else group,
        prompt_len=[len(prompt) for prompt in repeated],
        pad=pad,
    )


def spread(values: Sequence[Sequence[float] | Tensor], batch: TokenBatch) -> Tensor:
    """[B, T] float32: each row's values on its masked-in tokens, in order, 0 elsewhere.

    Raises ValueError when a row has not as many values as masked-in tokens.
    """
    counts = batch.loss_mask.sum(1).tolist()
    if len(values) != len(counts):
        raise ValueError(f"{len(counts)} rows need {len(counts)} lists of values, found {len(values)}")
    for row, (value, count) in enumerate(zip(values, counts, strict=True)):
        if len(value) != count:
            raise ValueError(f"row {row} has {count} completion tokens but {len(value)} values")
    device = batch.loss_mask.device
    out = torch.zeros(batch.loss_mask.shape, dtype=torch.float32, device=device)
    if sum(counts):
        flat = [torch.as_tensor(value, dtype=torch.float32, device=device) for value in values]
        out[batch.loss_mask] = torch.cat(flat)
    return out
