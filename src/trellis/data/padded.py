"""Tokenised rows as padded tensors, by the names and keys of TRL's collators; trainers pad for themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .collate import collate_pairs
from .messages import as_marks

Rows = Sequence[Mapping[str, Any]]
IGNORED = -100


def pad(
    tensors: Sequence[Tensor],
    padding_value: int | float = 0,
    padding_side: str = "right",
    pad_to_multiple_of: int | None = None,
) -> Tensor:
    """Tensors of one rank [..] as [B, ..], each dimension as long as its longest; the first one up to a multiple.

    Raises ValueError for another side than "left" or "right".
    """
    if padding_side not in ("left", "right"):
        raise ValueError(f"padding_side={padding_side!r} is unknown; expected 'left' or 'right'")
    shape = [max(sizes) for sizes in zip(*(t.shape for t in tensors), strict=True)]
    if pad_to_multiple_of:
        shape[0] = -(-shape[0] // pad_to_multiple_of) * pad_to_multiple_of
    out = torch.full((len(tensors), *shape), padding_value, dtype=tensors[0].dtype, device=tensors[0].device)
    for row, tensor in zip(out, tensors, strict=True):
        start = shape[0] - len(tensor) if padding_side == "left" else 0
        row[(slice(start, start + len(tensor)), *(slice(0, n) for n in tensor.shape[1:]))] = tensor
    return out


@dataclass
class _Padded:
    pad_token_id: int
    pad_to_multiple_of: int | None = None
    return_tensors: str = "pt"

    def __post_init__(self) -> None:
        if self.return_tensors != "pt":
            raise ValueError(f"return_tensors={self.return_tensors!r}: only torch tensors ('pt') are made")

    def _filled(self, lists: Sequence[Sequence[int]], value: int, side: str = "right") -> Tensor:
        return pad([torch.tensor(list(x)) for x in lists], value, side, self.pad_to_multiple_of)

    def _pair(self, name: str, lists: Sequence[Sequence[int]], side: str = "right") -> dict[str, Tensor]:
        return {
            f"{name}input_ids": self._filled(lists, self.pad_token_id, side),
            f"{name}attention_mask": self._filled([[1] * len(x) for x in lists], 0, side),
        }


@dataclass
class DataCollatorForLanguageModeling:
    """`input_ids`, `labels` (-100: not trained) and `attention_mask` of rows of tokens, [B, T]; with `padding_free` all in one
    row with `position_ids` that begin again with every text (its first token, which has no past, is not trained).

    Rows hold `input_ids` and, as they have them, `labels`, `completion_mask` (used with `completion_only_loss`),
    `assistant_masks`, `seq_lengths`.
    """

    pad_token_id: int
    completion_only_loss: bool = True
    padding_free: bool = False
    pad_to_multiple_of: int | None = None
    return_tensors: str = "pt"

    def __call__(self, examples: Rows) -> dict[str, Tensor]:
        fill = _Padded(self.pad_token_id, self.pad_to_multiple_of, self.return_tensors)._filled
        ids = [list(row["input_ids"]) for row in examples]
        labels = [self._labels(row) for row in examples]
        if not self.padding_free:
            mask = fill([[1] * len(x) for x in ids], 0)
            return {
                "input_ids": fill(ids, self.pad_token_id),
                "labels": fill(labels, IGNORED),
                "attention_mask": mask,
            }
        lengths = [n for row in examples for n in row.get("seq_lengths") or [len(row["input_ids"])]]
        position = fill([[i for n in lengths for i in range(n)]], 0)
        return {
            "input_ids": fill([sum(ids, [])], self.pad_token_id),
            "labels": fill([sum(labels, [])], IGNORED).masked_fill(position == 0, IGNORED),
            "position_ids": position,
        }

    def _labels(self, row: Mapping[str, Any]) -> list[int]:
        labels = list(row.get("labels", row["input_ids"]))
        names = ["assistant_masks", *(["completion_mask"] if self.completion_only_loss else [])]
        for name in (n for n in names if row.get(n) is not None):
            marks = as_marks(row[name], name, len(labels))
            labels = [i if mark else IGNORED for i, mark in zip(labels, marks, strict=True)]
        return labels


@dataclass
class DataCollatorForPreference(_Padded):
    """{prompt, chosen, rejected}_{input_ids, attention_mask} of pairs in tokens, prompts padded on the left, answers on the
    right, and `ref_chosen_logps`, `ref_rejected_logps` [B] where rows have them; of a trainer's own rows the trainer's own batch.
    """

    def __call__(self, examples: Rows) -> Any:
        if "prompt_ids" in examples[0]:
            return collate_pairs(examples, self.pad_token_id, self.pad_to_multiple_of)
        sides = {"prompt_": "left", "chosen_": "right", "rejected_": "right"}
        out: dict[str, Tensor] = {}
        for name, side in sides.items():
            out |= self._pair(name, [row[f"{name}input_ids"] for row in examples], side)
        return out | _numbers(examples, "ref_chosen_logps", "ref_rejected_logps")


@dataclass
class ChosenThenRejected(_Padded):
    """`input_ids` and `attention_mask` [2B, T] of pairs in tokens, the chosen answers and then the rejected ones, and `margin`
    [B] where rows have one; of a trainer's own rows the trainer's own batch. TRL's reward trainer calls it
    DataCollatorForPreference.
    """

    def __call__(self, examples: Rows) -> Any:
        if "prompt_ids" in examples[0]:
            return collate_pairs(examples, self.pad_token_id, self.pad_to_multiple_of)
        rows = [row[f"{side}_input_ids"] for side in ("chosen", "rejected") for row in examples]
        return self._pair("", rows) | _numbers(examples, "margin")


def _numbers(rows: Rows, *names: str) -> dict[str, Tensor]:
    return {name: torch.tensor([float(row[name]) for row in rows]) for name in names if name in rows[0]}
