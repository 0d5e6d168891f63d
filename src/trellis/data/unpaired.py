"""Labelled answers: rows of any accepted format to token ids, pairs taken apart, and the mismatched answers of KTO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..types import TokenBatch, UnpairedBatch
from .formats import Schema, schema_error
from .prepare import check_lengths, check_limit, encoding, finish, prepare_pairs, refuse_images
from .report import DataReport
from .source import Prepared, as_source, columns_of, is_stream, map_rows, schema_of
from .tokenize import ENCODERS, Encoding, Row, Tokens, _stopped, row_ids

TOKEN_COLUMNS = (("prompt_ids", "completion_ids"), ("prompt_input_ids", "completion_input_ids"))


def prepare_unpaired(
    dataset: Any,
    tokenizer: Any,
    *,
    max_length: int | None = None,
    max_prompt_length: int | None = None,
    max_completion_length: int | None = None,
    truncation_mode: str = "keep_end",
    num_proc: int | None = None,
    name: str = "train_dataset",
) -> tuple[Prepared, DataReport]:
    """Rows `{"prompt_ids", "completion_ids", "label"}` of labelled answers, or of pairs (each becomes two), and their report.

    A row of more than `max_length` tokens loses the beginning of its prompt ("keep_end") or the end of its answer ("keep_start");
    `max_prompt_length` always takes a prompt's beginning, `max_completion_length` an answer's end; every cut is counted. Raises
    ValueError or TypeError for data that cannot be read.
    """
    limits: dict[str, Any] = {
        "max_length": max_length,
        "max_prompt_length": max_prompt_length,
        "max_completion_length": max_completion_length,
    }
    check_lengths(max_length, truncation_mode)
    for option in ("max_prompt_length", "max_completion_length"):
        check_limit(option, limits[option])
    source = as_source(dataset, name, "completion")
    if is_stream(source):
        raise TypeError(
            f"{name}: found a stream; KTO pairs every prompt with another row's answer, for which it needs all rows. Write "
            "dataset = datasets.Dataset.from_list(list(stream))."
        )
    refuse_images(source, name)
    if _is_paired(columns_of(source, name)):
        pairs, report = prepare_pairs(
            source, tokenizer, **limits, truncation_mode=truncation_mode, num_proc=num_proc, name=name
        )
        return taken_apart(pairs), report
    schema = schema_of(source, name, unpaired_schema)
    enc = replace(encoding(tokenizer, schema, source, name), **limits, over_length=truncation_mode)
    mapped = map_rows(source, unpaired_row, {"enc": enc}, owner=name, num_proc=num_proc)
    return finish(mapped, name, option="max_length", value=max_length)


def _is_paired(columns: Sequence[str]) -> bool:
    return any({f"chosen{end}", f"rejected{end}"} <= set(columns) for end in ("", "_ids", "_input_ids"))


def unpaired_schema(columns: Sequence[str], owner: str = "train_dataset") -> Schema:
    """The format of a data set of labelled answers. Raises ValueError for columns that are none."""
    found = set(columns)
    if "label" in found:
        for prompt, completion in TOKEN_COLUMNS:
            if {prompt, completion} <= found:
                return Schema("unpaired_tokens", {"prompt_ids": prompt, "completion_ids": completion})
        if {"prompt", "completion"} <= found:
            return Schema("prompt_completion", {"prompt": "prompt", "completion": "completion"})
    raise schema_error("unpaired", columns, owner)


def unpaired_row(row: Row, index: int, enc: Encoding) -> dict[str, Any]:
    """`prompt_ids`, `completion_ids` and `label` of one labelled answer."""
    tokens = _tokens(row, enc) if enc.kind == "unpaired_tokens" else ENCODERS[enc.kind](row, enc)
    at = max(0, min(tokens.prompt_len, len(tokens.ids) - 1))  # an answer that adds no token is no answer
    empty = tokens.prompt_len >= len(tokens.ids)
    prompt, completion = tokens.ids[:at], tokens.ids[at:]
    before = len(tokens.ids)
    prompt, completion = fitted(prompt, completion, enc)
    fault = (
        "an answer is empty" if empty else ("" if completion else "no room for an answer after the prompt")
    )
    return {
        "prompt_ids": prompt,
        "completion_ids": completion,
        "label": as_label(row["label"]),
        "_drop": fault,
        "_cut": before - len(prompt) - len(completion),
        "_need": (at if enc.over_length == "keep_start" else min(1, at)) + 1,
        "_trained": len(completion),
        "_seam": int(tokens.seam_moved),
        "_stopped": _stopped(enc, completion, [1] * len(completion)),
    }


def _tokens(row: Row, enc: Encoding) -> Tokens:
    prompt, completion = (row_ids(row, enc, name) for name in ("prompt_ids", "completion_ids"))
    ids = prompt + completion
    return Tokens(ids, [0] * len(prompt) + [1] * len(completion), len(prompt))


def as_label(value: Any) -> bool:
    """A label as True (liked) or False. Raises ValueError for anything but True, False, 1 and 0."""
    if value in (True, False):
        return bool(value)
    raise ValueError(f"`label` must be True (liked) or False, found {value!r}")


def fitted(prompt: list[int], completion: list[int], enc: Encoding) -> tuple[list[int], list[int]]:
    """Prompt and answer within the limits, by the rules of pairs (see `prepare_unpaired`)."""
    if enc.max_prompt_length is not None:
        prompt = prompt[max(0, len(prompt) - enc.max_prompt_length) :]
    completion = completion[: enc.max_completion_length]
    over = 0 if enc.max_length is None else max(0, len(prompt) + len(completion) - enc.max_length)
    if over and enc.over_length == "keep_end":
        prompt = prompt[min(over, max(0, len(prompt) - 1)) :]
    return prompt, completion if enc.max_length is None else completion[
        : max(0, enc.max_length - len(prompt))
    ]


def taken_apart(pairs: Prepared) -> Prepared:
    """Prepared pairs as labelled answers: the chosen one of a pair, then the rejected one."""
    if not isinstance(pairs, list):
        return pairs.map(_apart, batched=True, remove_columns=pairs.column_names)
    columns = _apart(
        {name: [row[name] for row in pairs] for name in ("prompt_ids", "chosen_ids", "rejected_ids")}
    )
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _apart(columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    answers = zip(columns["chosen_ids"], columns["rejected_ids"], strict=True)
    return {
        "prompt_ids": [prompt for prompt in columns["prompt_ids"] for _ in range(2)],
        "completion_ids": [answer for pair in answers for answer in pair],
        "label": [True, False] * len(columns["prompt_ids"]),
    }


def derangement(count: int, seed: int) -> list[int]:
    """A permutation of range(count) without a fixed point, a function of (count, seed): all rows in one random circle. Raises
    ValueError for fewer than two rows."""
    if count < 2:
        raise ValueError(
            f"KTO's KL term pairs every prompt with another row's answer: found {count} row, expected at least 2. Add rows, or "
            "write loss_type='apo_zero_unpaired', which needs none."
        )
    circle = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    partner = [0] * count
    for i, j in zip(circle, circle[1:] + circle[:1], strict=True):
        partner[i] = j
    return partner


class LabelledAnswers(Dataset):
    """Prepared labelled answers. With a seed each row brings `mismatched_ids`, the answer of another row, cut where prompt and
    answer exceed `max_length`; who gets whose is drawn once over the whole data (`derangement`), so it depends on no batch.
    `ref_logps` [rows, 2] adds `ref_logp` and `mismatched_ref_logp`.
    """

    def __init__(self, rows: Prepared, seed: int | None = None, max_length: int | None = None) -> None:
        self.rows, self.max_length = rows, max_length
        self.partner = None if seed is None else derangement(len(rows), seed)
        self.ref_logps: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = dict(self.rows[index])
        if self.partner is not None:
            answer = self.rows[self.partner[index]]["completion_ids"]
            room = None if self.max_length is None else max(1, self.max_length - len(row["prompt_ids"]))
            row["mismatched_ids"] = answer[:room]
        if self.ref_logps is not None:
            row["ref_logp"], row["mismatched_ref_logp"] = self.ref_logps[index].tolist()
        return row

    def as_pairs(self) -> list[dict[str, Any]]:
        """Each prompt with its own and its mismatched answer (or none), named as the two answers of a pair."""
        rows = (self[i] for i in range(len(self)))
        return [
            {
                "prompt_ids": row["prompt_ids"],
                "chosen_ids": row["completion_ids"],
                "rejected_ids": row.get("mismatched_ids", []),
            }
            for row in rows
        ]


def as_labelled(pair: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `LabelledAnswers.as_pairs` as a labelled answer again (with any label)."""
    return {
        "prompt_ids": pair["prompt_ids"],
        "completion_ids": pair["chosen_ids"],
        "mismatched_ids": pair["rejected_ids"],
        "label": True,
    }


def collate_unpaired(
    rows: Sequence[Mapping[str, Any]], pad: int, multiple: int | None = None
) -> UnpairedBatch:
    """Prepared labelled answers as one UnpairedBatch; `mismatched_ids` become the second half of its rows."""
    names = ["completion_ids", *(["mismatched_ids"] if "mismatched_ids" in rows[0] else [])]
    every = [(row["prompt_ids"], row[name]) for name in names for row in rows]
    tokens = TokenBatch.from_lists(
        [[*prompt, *answer] for prompt, answer in every],
        [[0] * len(prompt) + [1] * len(answer) for prompt, answer in every],
        group=list(range(len(rows))) * len(names),
        prompt_len=[len(prompt) for prompt, _ in every],
        pad=pad,
        multiple=multiple,
    )
    known = ["ref_logp", *(["mismatched_ref_logp"] if len(names) == 2 else [])]
    ref_logps = None
    if "ref_logp" in rows[0]:
        ref_logps = torch.tensor([row[name] for name in known for row in rows], dtype=torch.float32)
    return UnpairedBatch(tokens, torch.tensor([row["label"] for row in rows], dtype=torch.bool), ref_logps)
