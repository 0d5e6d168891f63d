"""Prepared rows to records: `TokenBatch` and `PairBatch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..types import PairBatch, TokenBatch
from .pack import segments
from .tokenize import labels_mask


def collate_tokens(rows: Sequence[Mapping[str, Any]], pad: int, multiple: int | None = None) -> TokenBatch:
    """Prepared language-modelling rows as one batch; a packed row becomes one row per segment. `multiple` rounds the width up."""
    ids, masks, prompts = [], [], []
    for row in rows:
        parts = list(segments(row))
        ids += [part[0] for part in parts]
        masks += [part[1] for part in parts]
        prompts += [row.get("prompt_len", 0)] if len(parts) == 1 else [0] * len(parts)
    return TokenBatch.from_lists(ids, masks, prompt_len=prompts, pad=pad, multiple=multiple)


def collate_pairs(rows: Sequence[Mapping[str, Any]], pad: int, multiple: int | None = None) -> PairBatch:
    """Prepared pairs as one PairBatch: the chosen, then the rejected; the answer's tokens are masked in.

    Rows with `ref_chosen_logps` and `ref_rejected_logps` give its `ref_logps`.
    """
    sides = [[(row["prompt_ids"], row[name]) for row in rows] for name in ("chosen_ids", "rejected_ids")]
    both = sides[0] + sides[1]
    tokens = TokenBatch.from_lists(
        [[*prompt, *answer] for prompt, answer in both],
        [[0] * len(prompt) + [1] * len(answer) for prompt, answer in both],
        group=list(range(len(rows))) * 2,
        prompt_len=[len(prompt) for prompt, _ in both],
        pad=pad,
        multiple=multiple,
    )
    margins = [row.get("margin") for row in rows]
    known = [row.get(name) for name in ("ref_chosen_logps", "ref_rejected_logps") for row in rows]
    return PairBatch(
        tokens,
        torch.tensor([0.0 if m is None else m for m in margins], dtype=torch.float32),
        None if None in known else torch.tensor(known),
    )


def tokens_from_labels(batch: Mapping[str, Any], pad: int = 0) -> TokenBatch:
    """What a Hugging Face style collator returns (`input_ids`, `labels`, and `attention_mask` or `position_ids`) as a TokenBatch.

    Padding may be on either side; rows joined without padding are taken apart where `position_ids` begin again at 0. Raises
    ValueError when a key is missing or a label is another token than the one at its place.
    """
    missing = [name for name in ("input_ids", "labels") if name not in batch]
    if missing:
        raise ValueError(
            f"data_collator returned keys {sorted(batch)}; expected `input_ids` and `labels` (missing: {missing})"
        )
    input_ids = torch.as_tensor(batch["input_ids"])
    ids, labels = input_ids.tolist(), torch.as_tensor(batch["labels"]).tolist()
    keep = torch.as_tensor(batch.get("attention_mask", torch.ones_like(input_ids))).tolist()
    starts = _starts(batch, input_ids)
    rows, masks = [], []
    for row_ids, row_labels, row_keep, row_starts in zip(ids, labels, keep, starts, strict=True):
        for a, b in zip(row_starts, [*row_starts[1:], len(row_ids)], strict=True):
            kept = [j for j in range(a, b) if row_keep[j]]
            part = [row_ids[j] for j in kept]
            rows.append(part)
            masks.append(labels_mask(part, [row_labels[j] for j in kept]))
    return TokenBatch.from_lists(rows, masks, pad=pad)


def _starts(batch: Mapping[str, Any], input_ids: Tensor) -> list[list[int]]:
    # A left-padded row's position_ids are 0 on padding too; only rows without an attention mask can be joined.
    if "position_ids" not in batch or "attention_mask" in batch:
        return [[0]] * len(input_ids)
    positions = torch.as_tensor(batch["position_ids"]).expand_as(input_ids)
    return [(row == 0).nonzero().flatten().tolist() or [0] for row in positions]
