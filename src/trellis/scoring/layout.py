"""How the rows of a batch are laid out for the forward pass. The caller never sees it: results come back aligned to `[B, T]`.

A layout turns a TokenBatch into model inputs and two index tensors: `flat`, where in the flattened hidden states the predictor
(the token before) of each masked-in token is, and `place`, where in the flattened `[B, T]` result it belongs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..types import TokenBatch
from .attention import describe


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
    full = batch.input_ids.shape[1]
    lengths = batch.lengths
    starts = lengths.cumsum(0) - lengths
    row, column = batch.loss_mask.nonzero(as_tuple=True)
    positions = torch.arange(full, device=lengths.device).expand(len(batch), full)
    return Arranged(
        inputs={
            "input_ids": batch.input_ids[batch.attention_mask][None],
            "attention_mask": describe([n for n in lengths.tolist() if n], lengths.device),
            "position_ids": positions[batch.attention_mask][None],
        },
        flat=starts[row] + column - 1,
        place=row * full + column,
        last=starts + lengths - 1,
    )


LAYOUTS = {"padded": padded, "packed": packed}
