"""How the rows of a batch are laid out for the forward pass. The caller never sees it: results come back aligned to `[B, T]`.

A layout turns a TokenBatch into model inputs and two index tensors: `flat`, where in the flattened hidden states the predictor
(the token before) of each masked-in token is, and `place`, where in the flattened `[B, T]` result it belongs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..types import TokenBatch
from .segments import Segments


@dataclass(frozen=True)
class Arranged:
    """Model inputs and where to find things in the hidden states [*, *, H] flattened to [N, H].

    flat [P]: the predictor of each masked-in token; place [P]: that token in the flattened [B, T] result; last [B]: each
    row's last real token.
    """

    inputs: dict[str, Tensor]
    flat: Tensor
    place: Tensor
    last: Tensor

    @property
    def tokens(self) -> int:
        """How many tokens go through the trunk."""
        return self.inputs["input_ids"].numel()


def padded(batch: TokenBatch) -> Arranged:
    """Rows side by side, padded on the right to the longest of them."""
    full = batch.input_ids.shape[1]
    width = int(batch.lengths.max()) if len(batch) else 0
    row, column = batch.loss_mask.nonzero(as_tuple=True)
    positions = torch.arange(width, device=batch.input_ids.device).expand(len(batch), width)
    return Arranged(
        inputs={
            "input_ids": batch.input_ids[:, :width],
            "attention_mask": batch.attention_mask[:, :width].long(),
            "position_ids": positions,
        },
        flat=row * width + column - 1,
        place=row * full + column,
        last=torch.arange(len(batch), device=batch.lengths.device) * width + batch.lengths - 1,
    )


def packed(batch: TokenBatch) -> Arranged:
    """Rows end to end in one sequence, without padding; each attends to itself alone. Rows without a token take no place."""
    nothing = torch.zeros_like(batch.prompt_len)
    return _end_to_end(batch, nothing, torch.arange(len(batch), device=nothing.device))


def shared(batch: TokenBatch) -> Arranged:
    """As `packed`, but a prompt that rows of one group begin with is laid down once, in the first of them; the others go
    on from it, exactly as if each had a copy. Without such rows it is `packed`."""
    length, first = _shared_prompts(batch)
    return _end_to_end(batch, length, first)


def _shared_prompts(batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """(tokens [B] of the prompt that a row shares, 0 for none; the row [B] that holds it: the first with that prompt)."""
    rows = torch.arange(len(batch), device=batch.group.device)
    same_group = batch.group[:, None] == batch.group
    same = same_group & (batch.prompt_len[:, None] == batch.prompt_len) & (batch.prompt_len > 0)
    pairs = (same & (rows[:, None] > rows)).nonzero()
    if len(pairs):  # groups are small, so are the pairs; only they are compared token by token
        left, right = pairs.T
        inside = torch.arange(batch.input_ids.shape[1], device=rows.device) < batch.prompt_len[left][:, None]
        equal = ((batch.input_ids[left] == batch.input_ids[right]) | ~inside).all(1)
        same[left[~equal], right[~equal]] = False
        same[right[~equal], left[~equal]] = False
    first = torch.where(same.any(1), same.int().argmax(1), rows)
    used = torch.zeros_like(rows).index_add(0, first, torch.ones_like(rows)) > 1
    return torch.where(used[first], batch.prompt_len, 0), first


def _end_to_end(batch: TokenBatch, prompt: Tensor, first: Tensor) -> Arranged:
    """Rows end to end; the leading `prompt` [B] tokens of a row are those of row `first` [B] and are laid down there only."""
    full, rows = batch.input_ids.shape[1], torch.arange(len(batch), device=prompt.device)
    columns = torch.arange(full, device=prompt.device).expand(len(batch), full)
    owner = first == rows
    kept = batch.attention_mask & (owner[:, None] | (columns >= prompt[:, None]))
    count = kept.sum(1)
    starts = count.cumsum(0) - count
    tail = starts + prompt * owner  # where a row's own part begins

    def place(row: Tensor, column: Tensor) -> Tensor:
        in_prompt = column < prompt[row]
        return torch.where(in_prompt, starts[first[row]] + column, tail[row] + column - prompt[row])

    row, column = batch.loss_mask.nonzero(as_tuple=True)
    return Arranged(
        inputs={
            "input_ids": batch.input_ids[kept][None],
            "attention_mask": _segments(batch.lengths, prompt, first).describe(prompt.device),
            "position_ids": columns[kept][None],
        },
        flat=place(row, column - 1),
        place=row * full + column,
        last=place(rows, (batch.lengths - 1).clamp(min=0)),
    )


def _segments(lengths: Tensor, prompt: Tensor, first: Tensor) -> Segments:
    """Prompts that are shared are segments of their own, which the rows' own parts go on from; empty parts are left out."""
    sizes: list[int] = []
    after: list[int] = []
    holder: dict[int, int] = {}
    for row, (length, shared_length, owner) in enumerate(
        zip(lengths.tolist(), prompt.tolist(), first.tolist(), strict=True)
    ):
        if shared_length and owner == row:
            holder[row] = len(sizes)
            sizes.append(shared_length)
            after.append(-1)
        if length > shared_length:
            sizes.append(length - shared_length)
            after.append(holder[owner] if shared_length else -1)
    return Segments(sizes, after)


LAYOUTS = {"padded": padded, "packed": packed, "shared": shared}
